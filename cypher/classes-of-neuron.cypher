// The classes that a neuron matters to: those that rank it, or have images in which it is active.
//
// Classes whose attribution graph has it come first, then by PageRank, then by share.
//
// Parameters:
//   neuron (text): key of a neuron
// Columns:
//   class (text): key of a class
//   index (integer): its number
//   name (text): its name
//   pagerank (number or null): the neuron's PageRank in the class's graph
//   rank (integer or null): its place by PageRank, 1 the highest
//   selected (boolean): whether the attribution graph has it
//   count (integer): images of the class in which it is active
//   share (number or null): count / images of the class
// In Neo4j Browser:
//   :param neuron => "digits/conv3/22";
MATCH (n:Neuron {key: $neuron})
CALL (n) {
  MATCH (n)<-[r:RANKS]-(c:Class)
  RETURN c, r.pagerank AS pagerank, r.rank AS rank, false AS selected, 0 AS count
UNION ALL
  MATCH (n)<-[:ATTRIBUTES]-(c:Class)
  RETURN c, null AS pagerank, null AS rank, true AS selected, 0 AS count
UNION ALL
  MATCH (n)<-[a:ACTIVATES]-(c:Class)
  RETURN c, null AS pagerank, null AS rank, false AS selected, a.count AS count
}
WITH c, max(pagerank) AS pagerank, max(rank) AS rank, max(selected) AS selected, max(count) AS count
RETURN c.key AS class, c.index AS index, c.name AS name, pagerank, rank, selected, count,
       toFloat(count) / c.images AS share
ORDER BY selected DESC, coalesce(pagerank, 0.0) DESC, coalesce(share, 0.0) DESC, index
