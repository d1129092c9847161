// The neurons of a class's attribution graph, by rank (docs/method.md, section 5).
//
// Parameters:
//   class (text): key of a class
// Columns:
//   neuron (text): its key
//   layer (text): its layer
//   channel (integer): its channel
//   pagerank (number): its PageRank in the class's graph
//   rank (integer): its place by PageRank, 1 the highest
//   count (integer): images of the class in which it is active
//   share (number or null): count / images of the class
// In Neo4j Browser:
//   :param class => "digits/class/3";
MATCH (c:Class {key: $class})-[a:ATTRIBUTES]->(n:Neuron)
USING INDEX c:Class(key)
RETURN n.key AS neuron, n.layer AS layer, n.channel AS channel, a.pagerank AS pagerank,
       a.rank AS rank, a.count AS count, toFloat(a.count) / c.images AS share
ORDER BY rank
