// The neurons that an attribution graph of another mass would have (docs/method.md, section 5).
//
// Neurons are taken by PageRank until their sum reaches the mass; those strictly above the next one
// are kept. Where a layer that has an edge to an earlier layer keeps none, the mass rises by
// 0.005 · r, at most to 1, where all are kept. A layer keeps one as soon as both ends of its best
// edge are kept: the edge whose lower end has the highest PageRank.
//
// Parameters:
//   class (text): key of a class
//   mass (share or null, null): above 0, at most 1; null: that of the model's own ranking
// Columns:
//   neuron (text): its key
//   layer (text): its layer
//   channel (integer): its channel
//   pagerank (number): its PageRank
//   rank (integer): its place, 1 the highest
//   mass (number): the mass in the end; the same in each row
//   threshold (number or null): neurons lie above it; null: all are kept; the same in each row
// Needs:
//   edges
//   counts
// In Neo4j Browser:
//   :param class => "digits/class/3";
//   :param mass => 0.15;
MATCH (m:Model)-[:HAS_CLASS]->(c:Class {key: $class})
USING INDEX c:Class(key)
CALL (m, c) {
  MATCH (m)-[:HAS_LAYER]->(:Layer)-[:HAS_NEURON]->(n:Neuron)
  RETURN n.index AS index, null AS pagerank
UNION ALL
  MATCH (c)-[r:RANKS]->(n:Neuron)
  RETURN n.index AS index, r.pagerank AS pagerank
}
WITH m, c, index, max(pagerank) AS pagerank
ORDER BY index
WITH m, c, collect(coalesce(pagerank, 0.0)) AS pagerank
// `needed`: every layer has an edge whose ends both have at least this PageRank.
CALL (pagerank) {
  MATCH (a:Neuron)-[e:INFLUENCES {class: $class}]->(b:Neuron)
  USING INDEX e:INFLUENCES(class)
  WITH b.layer AS layer,
       max(CASE WHEN pagerank[a.index] < pagerank[b.index]
                THEN pagerank[a.index] ELSE pagerank[b.index] END) AS best
  RETURN min(best) AS needed
}
MATCH (c)-[r:RANKS]->(n:Neuron)
WITH coalesce($mass, m.mass, 0.075) AS mass, needed, n, r
ORDER BY r.rank
WITH mass, needed, collect(n) AS neurons, collect(r.pagerank) AS falling
WITH mass, neurons, falling, size([value IN falling WHERE value >= needed]) AS least,
     reduce(sums = [], value IN falling | sums + [coalesce(sums[-1], 0.0) + value]) AS running
// `least` neurons have to carry the mass, so that the next one is below what is needed.
WITH neurons, falling, running,
     [used IN [r IN range(0, 200)
               | CASE WHEN mass + 0.005 * r < 1 THEN mass + 0.005 * r ELSE 1.0 END]
      WHERE used = 1 OR least < 2 OR running[least - 2] < used][0] AS used
WITH neurons, falling, used,
     CASE WHEN used = 1 THEN null
          ELSE falling[size([sum IN running WHERE sum < used]) + 1] END AS threshold
UNWIND range(1, size(neurons)) AS rank
WITH neurons[rank - 1] AS n, falling[rank - 1] AS pagerank, rank, used, threshold
WHERE threshold IS NULL OR pagerank > threshold
RETURN n.key AS neuron, n.layer AS layer, n.channel AS channel, pagerank, rank, used AS mass,
       threshold
ORDER BY rank
