// Ranks a class's graph by personalised PageRank, with Graph Data Science.
//
// Walkers start where the class activates its layers most: at count / the largest count of the
// layer, over all channels that are not excluded; everywhere alike where there is no count. Source:
// docs/method.md, section 5. `pagerank` answers the same without a plugin.
//
// The graph is projected under a name of its own, and dropped before the rows are returned. Should
// the algorithm fail, Cypher has no way to drop it on the spot; so each run first drops what an
// earlier one left behind more than ten minutes ago.
//
// Parameters:
//   class (text): key of a class
//   damping (share or null, null): 0 or more, below 1; null: that of the model's own ranking
//   iterations (count, 1000): steps at most
// Columns:
//   neuron (text): its key
//   layer (text): its layer
//   channel (integer): its channel
//   pagerank (number): sums to 1
//   rank (integer): its place, 1 the highest; equal ones by Neuron.index
// Needs:
//   edges
//   counts
//   gds
// In Neo4j Browser:
//   :param class => "digits/class/3";
//   :param damping => null;
//   :param iterations => 1000;
CALL () {
  CALL gds.graph.list() YIELD graphName, creationTime
  WITH graphName
  WHERE graphName STARTS WITH 'summit-graph/'
    AND creationTime < datetime() - duration({minutes: 10})
  CALL gds.graph.drop(graphName, false) YIELD graphName AS dropped
  RETURN count(dropped) AS leftovers
}
MATCH (m:Model)-[:HAS_CLASS]->(c:Class {key: $class})
USING INDEX c:Class(key)
WITH c, coalesce($damping, m.damping, 0.85) AS damping, 'summit-graph/' + randomUUID() AS name
MATCH (a:Neuron)-[e:INFLUENCES {class: $class}]->(b:Neuron)
USING INDEX e:INFLUENCES(class)
WITH c, damping,
     gds.graph.project(
       name, a, b,
       {relationshipProperties: {count: e.count}},
       {undirectedRelationshipTypes: ['*']}
     ) AS projected
CALL (c) {
  MATCH (c)-[active:ACTIVATES]->(n:Neuron)
  WHERE n.excluded IS NULL
  WITH c, n.layer AS layer, max(active.count) AS largest, collect([n, active.count]) AS counts
  UNWIND counts AS entry
  WITH c, entry[0] AS n, toFloat(entry[1]) / largest AS jump
  WHERE EXISTS { (c)-[:RANKS]->(n) }
  RETURN collect([n, jump]) AS jumps
}
CALL (c, jumps) {
  WITH c, jumps
  WHERE jumps = []
  MATCH (c)-[:RANKS]->(n:Neuron)
  RETURN n, 1.0 AS jump
UNION ALL
  UNWIND jumps AS entry
  RETURN entry[0] AS n, entry[1] AS jump
}
WITH projected.graphName AS name, damping, collect([n, jump]) AS jumps, sum(jump) AS total
CALL gds.pageRank.stream(name, {
  sourceNodes: [entry IN jumps | [entry[0], entry[1] / total]],
  relationshipWeightProperty: 'count',
  dampingFactor: damping,
  maxIterations: $iterations,
  tolerance: 1e-12
}) YIELD nodeId, score
WITH name, collect([gds.util.asNode(nodeId), score]) AS scores
CALL gds.graph.drop(name, false) YIELD graphName
UNWIND scores AS entry
WITH entry[0] AS n, entry[1] AS pagerank
ORDER BY pagerank DESC, n.index
WITH collect([n, pagerank]) AS falling
UNWIND range(1, size(falling)) AS rank
WITH falling[rank - 1][0] AS n, falling[rank - 1][1] AS pagerank, rank
RETURN n.key AS neuron, n.layer AS layer, n.channel AS channel, pagerank, rank
ORDER BY rank
