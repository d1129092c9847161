// The neurons of a class's attribution graph that feed a neuron, within some hops.
//
// A hop is an edge of the attribution graph, against its direction: to the neuron's sources, and
// theirs.
// No rows: the neuron is not in the attribution graph, or nothing feeds it there; `neighbours`
// answers for all of the class's graph.
//
// Parameters:
//   class (text): key of a class
//   neuron (text): key of a neuron
//   hops (count, 2): how far to go
//   limit (count, 100): rows at most
// Columns:
//   neuron (text): key of a neuron before it
//   layer (text): its layer
//   channel (integer): its channel
//   hops (integer): edges of the shortest way
//   width (integer): the lowest count on the way, within these hops, whose lowest count is highest
//   pagerank (number): its PageRank in the class's graph
//   rank (integer): its place by PageRank, 1 the highest
//   count (integer): images of the class in which it is active
// In Neo4j Browser:
//   :param class => "digits/class/3";
//   :param neuron => "digits/conv4/10";
//   :param hops => 2;
//   :param limit => 100;
MATCH (c:Class {key: $class})-[:ATTRIBUTES]->(n:Neuron)
USING INDEX c:Class(key)
WITH c, n
ORDER BY n.index
WITH c, collect(n) AS neurons, collect(n.index) AS places
CALL (places) {
  MATCH (a:Neuron)-[e:INFLUENCES {class: $class, selected: true}]->(b:Neuron)
  USING INDEX e:INFLUENCES(class, selected)
  RETURN collect({
    far: a.index,
    near: [i IN range(0, size(places) - 1) WHERE places[i] = b.index][0],
    count: e.count
  }) AS edges
}
// reached[i]: hops and width of the ways to the neuron i so far; null where there is none.
WITH c, neurons, [place IN places | [e IN edges WHERE e.far = place]] AS edges
WITH c, neurons, reduce(
       reached = [n IN neurons | CASE n.key WHEN $neuron THEN {hops: 0, width: null} END],
       step IN range(1, $hops) |
       [i IN range(0, size(neurons) - 1) | reduce(
         best = reached[i],
         e IN [e IN edges[i] WHERE reached[e.near] IS NOT NULL] |
         [width IN [CASE WHEN e.count < coalesce(reached[e.near].width, e.count + 1)
                         THEN e.count ELSE reached[e.near].width END]
          | CASE
              WHEN best IS NULL THEN {hops: step, width: width}
              WHEN best.width < width THEN {hops: best.hops, width: width}
              ELSE best
            END][0]
       )]
     ) AS reached
UNWIND [i IN range(0, size(neurons) - 1) WHERE reached[i].hops > 0] AS i
WITH c, neurons[i] AS n, reached[i].hops AS hops, reached[i].width AS width
MATCH (c)-[a:ATTRIBUTES]->(n)
RETURN n.key AS neuron, n.layer AS layer, n.channel AS channel, hops, width,
       a.pagerank AS pagerank, a.rank AS rank, a.count AS count
ORDER BY hops, width DESC, n.index
LIMIT $limit
