// The neurons that are in the attribution graphs of most classes.
//
// Parameters:
//   model (text): key of a model
//   limit (count, 20): rows at most
// Columns:
//   neuron (text): its key
//   layer (text): its layer
//   channel (integer): its channel
//   classes (integer): attribution graphs that have it
//   share (number): of all classes of the model
//   pagerank (number): the sum of its PageRanks in these graphs
//   highest (text): key of the class that ranks it highest
//   highest_rank (integer): its place there
// In Neo4j Browser:
//   :param model => "digits";
//   :param limit => 20;
MATCH (m:Model {key: $model})-[:HAS_CLASS]->(c:Class)-[a:ATTRIBUTES]->(n:Neuron)
USING INDEX m:Model(key)
WITH m, c, a, n
ORDER BY a.rank, c.index
WITH m, n, count(*) AS classes, sum(a.pagerank) AS pagerank, collect(c.key)[0] AS highest,
     min(a.rank) AS highest_rank
RETURN n.key AS neuron, n.layer AS layer, n.channel AS channel, classes,
       toFloat(classes) / COUNT { (m)-[:HAS_CLASS]->() } AS share, pagerank, highest, highest_rank
ORDER BY classes DESC, pagerank DESC, n.index
LIMIT $limit
