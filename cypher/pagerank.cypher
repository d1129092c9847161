// Ranks a class's graph by personalised PageRank in this one query (docs/method.md, section 5).
//
// Walkers start where the class activates its layers most: at count / the largest count of the
// layer, over all channels that are not excluded; everywhere alike where there is no count.
//
// Vectors are lists with a place for each neuron of the model, by Neuron.index. With a = damping, W
// the weights and D each node's sum of weights, the ranks solve x = a W D⁻¹ x + (1 - a) t. The
// graph has no directions, so a W D⁻¹ has real eigenvalues within ±a, and the iteration
//   x' = before + w (a W D⁻¹ x + (1 - a) t - before),  w = 2 / (1 + √(1 - a²))
// shrinks the error by (1 - √(1 - a²)) / a a step: 0.56 at 0.85, where plain iteration has 0.85.
//
// Parameters:
//   class (text): key of a class
//   damping (share or null, null): 0 or more, below 1; null: that of the model's own ranking
//   iterations (count, 60): steps; more where the damping is nearer to 1
// Columns:
//   neuron (text): its key
//   layer (text): its layer
//   channel (integer): its channel
//   pagerank (number): sums to 1
//   rank (integer): its place, 1 the highest; equal ones by Neuron.index
//   change (number): by how much the last step moved the ranks, all together; the same in each row
// Needs:
//   edges
//   counts
// In Neo4j Browser:
//   :param class => "digits/class/3";
//   :param damping => null;
//   :param iterations => 60;
MATCH (m:Model)-[:HAS_CLASS]->(c:Class {key: $class})
USING INDEX c:Class(key)
CALL (m, c) {
  // Every neuron of the model has a row, so that the place in a list is Neuron.index.
  MATCH (m)-[:HAS_LAYER]->(:Layer)-[:HAS_NEURON]->(n:Neuron)
  RETURN n.index AS index, n AS neuron, 0.0 AS jump, null AS link
UNION ALL
  MATCH (c)-[active:ACTIVATES]->(n:Neuron)
  WHERE n.excluded IS NULL
  WITH n.layer AS layer, max(active.count) AS largest, collect([n.index, active.count]) AS counts
  UNWIND counts AS entry
  RETURN entry[0] AS index, null AS neuron, toFloat(entry[1]) / largest AS jump, null AS link
UNION ALL
  MATCH (a:Neuron)-[e:INFLUENCES {class: $class}]->(b:Neuron)
  USING INDEX e:INFLUENCES(class)
  UNWIND [[a.index, b.index], [b.index, a.index]] AS ends
  RETURN ends[0] AS index, null AS neuron, 0.0 AS jump, [ends[1], e.count] AS link
}
WITH coalesce($damping, m.damping, 0.85) AS damping, index, collect(neuron)[0] AS neuron,
     max(jump) AS jump, collect(link) AS links
ORDER BY index
// Only neurons that have an edge are nodes of the class's graph.
WITH damping, collect(neuron) AS neurons, collect(links) AS links,
     collect(CASE WHEN links = [] THEN 0.0 ELSE jump END) AS jumps,
     collect(CASE WHEN links = [] THEN 0.0 ELSE 1.0 END) AS nodes,
     collect(reduce(sum = 0.0, link IN links | sum + link[1])) AS weight
WITH damping, neurons, links, weight,
     CASE WHEN any(jump IN jumps WHERE jump > 0) THEN jumps ELSE nodes END AS jumps
WITH damping, neurons, reduce(sum = 0.0, jump IN jumps | sum + jump) AS total, jumps,
     [own IN links | [link IN own | [link[0], damping * link[1] / weight[link[0]]]]] AS links
WITH neurons, links, [jump IN jumps | jump / total] AS start,
     [jump IN jumps | (1 - damping) * jump / total] AS inflow,
     2 / (1 + sqrt(1 - damping * damping)) AS w
WITH neurons, links,
     reduce(
       ranks = {now: start, before: start},
       step IN range(1, $iterations) | {
         now: [i IN range(0, size(links) - 1) |
           ranks.before[i] + w * (
             reduce(sum = inflow[i], link IN links[i] | sum + link[1] * ranks.now[link[0]])
             - ranks.before[i]
           )],
         before: ranks.now
       }
     ) AS ranks
WITH neurons, links, ranks.now AS pagerank,
     reduce(sum = 0.0, i IN range(0, size(links) - 1)
            | sum + abs(ranks.now[i] - ranks.before[i])) AS change
WITH neurons, pagerank, change,
     COLLECT {
       UNWIND range(0, size(links) - 1) AS i
       WITH i
       WHERE links[i] <> []
       RETURN i
       ORDER BY pagerank[i] DESC, i
     } AS falling
UNWIND range(1, size(falling)) AS rank
WITH neurons[falling[rank - 1]] AS n, pagerank[falling[rank - 1]] AS pagerank, rank, change
RETURN n.key AS neuron, n.layer AS layer, n.channel AS channel, pagerank, rank, change
ORDER BY rank
