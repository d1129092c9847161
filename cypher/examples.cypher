// The images that excite a neuron most, the highest activation first (docs/method.md, section 6).
//
// Parameters:
//   neuron (text): key of a neuron
//   class (text or null, null): key of a class, for its images alone, if the atlas was counted so;
//     null: of all images
// Columns:
//   rank (integer): place by activation, 1 the highest
//   image (text): key of the image
//   path (text): where it lies, from the data set's root
//   activation (number): the highest of the neuron's map, above 0, without a unit
//   row (integer): where that is in the map
//   column (integer): where that is in the map
// Needs:
//   counts
// In Neo4j Browser:
//   :param neuron => "digits/conv3/22";
//   :param class => null;
MATCH (n:Neuron {key: $neuron})-[e:EXAMPLE]->(i:Image)
USING INDEX n:Neuron(key)
WHERE e.class = $class OR (e.class IS NULL AND $class IS NULL)
RETURN e.rank AS rank, i.key AS image, i.path AS path, e.activation AS activation, e.row AS row,
       e.column AS column
ORDER BY rank
