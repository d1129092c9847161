// The neurons that an image excites so much that it is one of their examples.
//
// Parameters:
//   image (text): key of an image
//   limit (count, 100): rows at most
// Columns:
//   neuron (text): its key
//   layer (text): its layer
//   channel (integer): its channel
//   rank (integer): place of the image among the neuron's examples, 1 the highest
//   activation (number): the highest of the neuron's map, above 0, without a unit
//   row (integer): where that is in the map
//   column (integer): where that is in the map
//   class (text or null): the class among whose images the place is; null: among all
// Needs:
//   counts
// In Neo4j Browser:
//   :param image => "digits/image/0";
//   :param limit => 100;
MATCH (i:Image {key: $image})<-[e:EXAMPLE]-(n:Neuron)
USING INDEX i:Image(key)
RETURN n.key AS neuron, n.layer AS layer, n.channel AS channel, e.rank AS rank,
       e.activation AS activation, e.row AS row, e.column AS column, e.class AS class
ORDER BY class IS NOT NULL, rank, n.index
LIMIT $limit
