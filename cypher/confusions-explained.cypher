// The classes that are confused most, and the neurons that their attribution graphs share.
//
// Parameters:
//   model (text): key of a model
//   limit (count, 20): rows at most
//   top (count, 5): how many of the shared neurons to name
// Columns:
//   class (text): key of a class
//   name (text): its name
//   other (text): key of the class that its images are taken for
//   other_name (text): its name
//   count (integer): images
//   share (number or null): count / images of the class
//   cosine (number or null): how alike the two are overall; null if the other is not among the 50
//     nearest
//   shared (integer): neurons that both attribution graphs have
//   overlap (number or null): shared / neurons that one or both have
//   neurons (list of text): keys of shared neurons, by the sum of their two PageRanks
// Needs:
//   counts
// In Neo4j Browser:
//   :param model => "digits";
//   :param limit => 20;
//   :param top => 5;
MATCH (m:Model {key: $model})-[:HAS_CLASS]->(c:Class)-[x:CONFUSED_WITH]->(o:Class)
USING INDEX m:Model(key)
WITH c, x, o
ORDER BY x.count DESC, c.index, o.index
LIMIT $limit
CALL (c, o) {
  MATCH (c)-[a:ATTRIBUTES]->(n:Neuron)<-[b:ATTRIBUTES]-(o)
  WITH n, a.pagerank + b.pagerank AS total
  ORDER BY total DESC, n.index
  RETURN collect(n.key) AS neurons
}
OPTIONAL MATCH (c)-[s:SIMILAR_TO]->(o)
WHERE s.layer IS NULL
WITH c, x, o, s, neurons, size(neurons) AS shared,
     COUNT { (c)-[:ATTRIBUTES]->() } + COUNT { (o)-[:ATTRIBUTES]->() } - size(neurons) AS either
RETURN c.key AS class, c.name AS name, o.key AS other, o.name AS other_name, x.count AS count,
       x.share AS share, s.cosine AS cosine, shared,
       CASE WHEN either > 0 THEN toFloat(shared) / either END AS overlap, neurons[..$top] AS neurons
ORDER BY count DESC, c.index, o.index
