// The neurons that the attribution graphs of several classes share.
//
// Parameters:
//   classes (list of text): keys of classes of one model
//   least (count or null, null): in how many of these graphs a neuron has to be; null: in all
// Columns:
//   neuron (text): its key
//   layer (text): its layer
//   channel (integer): its channel
//   classes (list of text): keys of the classes whose graph has it, by index
//   pageranks (list of number): its PageRank in each of these
//   ranks (list of integer): its place by PageRank in each of these
//   total (number): the sum of these PageRanks
// In Neo4j Browser:
//   :param classes => ["digits/class/3", "digits/class/8"];
//   :param least => null;
MATCH (c:Class)
WHERE c.key IN $classes
WITH c
ORDER BY c.index
WITH collect(c) AS chosen
UNWIND chosen AS c
MATCH (c)-[a:ATTRIBUTES]->(n:Neuron)
WITH size(chosen) AS chosen, n, collect(c.key) AS classes, collect(a.pagerank) AS pageranks,
     collect(a.rank) AS ranks, sum(a.pagerank) AS total
WHERE size(classes) >= coalesce($least, chosen)
RETURN n.key AS neuron, n.layer AS layer, n.channel AS channel, classes, pageranks, ranks, total
ORDER BY size(classes) DESC, total DESC, n.index
