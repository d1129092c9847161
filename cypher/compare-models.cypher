// Two models, or checkpoints of one, class by class: the neurons of both attribution graphs.
//
// Classes are paired by name, and by synset where both have one. Neurons are the same if layer and
// channel are: that says something where one model was made from the other, or both from the same
// start.
//
// Parameters:
//   model (text): key of a model
//   other_model (text): key of the other model
//   limit (count, 1000): rows at most
// Columns:
//   name (text): name of a class
//   class (text): its key in the first model
//   other (text): its key in the other
//   neurons (integer): neurons of its attribution graph in the first
//   other_neurons (integer): in the other
//   shared (integer): in both
//   overlap (number or null): shared / neurons in one or both; rows come the lowest first
//   rank_change (number or null): mean change of place by PageRank, up or down, of the shared
//   top1 (number or null): share of its images that the first model gets right
//   other_top1 (number or null): that the other does
// In Neo4j Browser:
//   :param model => "digits";
//   :param other_model => "digits-later";
//   :param limit => 1000;
MATCH (m:Model {key: $model})-[:HAS_CLASS]->(c:Class)
USING INDEX m:Model(key)
MATCH (second:Model {key: $other_model})-[:HAS_CLASS]->(o:Class)
USING INDEX second:Model(key)
WHERE o.name = c.name AND coalesce(o.synset = c.synset, true)
CALL (c, o) {
  MATCH (c)-[a:ATTRIBUTES]->(n:Neuron)
  RETURN n.layer AS layer, n.channel AS channel, a.rank AS rank, null AS other_rank
UNION ALL
  MATCH (o)-[a:ATTRIBUTES]->(n:Neuron)
  RETURN n.layer AS layer, n.channel AS channel, null AS rank, a.rank AS other_rank
}
WITH c, o, layer, channel, max(rank) AS rank, max(other_rank) AS other_rank
WITH c, o, count(rank) AS neurons, count(other_rank) AS other_neurons,
     count(rank + other_rank) AS shared, count(*) AS either,
     avg(abs(rank - other_rank)) AS rank_change
RETURN c.name AS name, c.key AS class, o.key AS other, neurons, other_neurons, shared,
       toFloat(shared) / either AS overlap, rank_change, c.top1 AS top1, o.top1 AS other_top1
ORDER BY overlap, c.index, o.index
LIMIT $limit
