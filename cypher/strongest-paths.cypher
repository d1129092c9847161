// The strongest paths from a neuron to the class, through the class's attribution graph.
//
// A path leads from layer to later layer, along edges of the attribution graph, to a neuron of the
// last layer that the graph has; `votes` is how often that neuron speaks for the class. Of two
// paths the stronger is the one whose weakest edge has the higher count; where these are equal, the
// second weakest decides, and so on; then the path without a further edge; then the lower
// Neuron.index, from the start on. What is stronger stays so with an edge more, so each neuron
// remembers its `limit` strongest ways from the start, and no others.
// No rows: the neuron is not in the attribution graph, or no way leads on to the last layer.
//
// Parameters:
//   class (text): key of a class
//   neuron (text): key of the neuron to start from, of the first layer or any other
//   limit (count, 10): paths at most
// Columns:
//   path (integer): its place, 1 the strongest
//   width (integer): the lowest count on it
//   counts (list of integer): the counts of its edges
//   neurons (list of text): the keys of its neurons
//   votes (integer or null): images in which its last neuron is among the logit's strongest sources
// In Neo4j Browser:
//   :param class => "digits/class/3";
//   :param neuron => "digits/conv1/4";
//   :param limit => 10;
MATCH (c:Class {key: $class})-[:ATTRIBUTES]->(n:Neuron)
USING INDEX c:Class(key)
WITH c, n
ORDER BY n.index
WITH c, collect(n) AS neurons, collect(n.index) AS places
CALL (places) {
  MATCH (a:Neuron)-[e:INFLUENCES {class: $class, selected: true}]->(b:Neuron)
  USING INDEX e:INFLUENCES(class, selected)
  RETURN collect({
    to: b.index,
    from: [i IN range(0, size(places) - 1) WHERE places[i] = a.index][0],
    count: e.count
  }) AS edges
}
WITH c, neurons, [place IN places | [e IN edges WHERE e.to = place]] AS sources,
     reduce(layers = [], n IN neurons
            | CASE WHEN n.layer IN layers THEN layers ELSE layers + [n.layer] END) AS layers
// ways[i]: the strongest ways from the start to the neuron i, the strongest first. The text `order`
// is the greater for the stronger way: its counts, rising; '~' for no further edge; its neurons.
WITH c, neurons, layers, reduce(
       ways = [n IN neurons | CASE n.key
         WHEN $neuron THEN [{neurons: [n.key], counts: [], rising: [], last: '', order: ''}]
         ELSE [] END],
       layer IN layers |
       [i IN range(0, size(neurons) - 1) | CASE
         WHEN neurons[i].layer <> layer OR neurons[i].key = $neuron THEN ways[i]
         ELSE reduce(
           best = [],
           way IN reduce(found = [], e IN sources[i] | found + [before IN ways[e.from] | {
             neurons: before.neurons + [neurons[i].key],
             counts: before.counts + [e.count],
             rising: [count IN before.rising WHERE count <= e.count] + [e.count]
                     + [count IN before.rising WHERE count > e.count],
             last: before.last + toString(9999999999 - neurons[i].index)
           }]) |
           [ranked IN [way {
              .*,
              order: reduce(text = '', count IN way.rising
                            | text + right('000000000' + toString(count), 10)) + '~' + way.last
            }]
            | [other IN best WHERE other.order > ranked.order] + [ranked]
              + [other IN best WHERE other.order < ranked.order]][0][..$limit]
         )
       END]
     ) AS ways
UNWIND range(0, size(neurons) - 1) AS i
WITH c, neurons[i] AS n, ways[i] AS ways, layers
WHERE n.layer = layers[-1]
UNWIND [way IN ways WHERE size(way.counts) > 0] AS way
WITH c, n, way
ORDER BY way.order DESC
LIMIT $limit
WITH c, collect({way: way, end: n}) AS found
UNWIND range(1, size(found)) AS path
WITH c, path, found[path - 1].way AS way, found[path - 1].end AS n
OPTIONAL MATCH (n)-[vote:VOTES_FOR]->(c)
RETURN path, way.rising[0] AS width, way.counts AS counts, way.neurons AS neurons,
       vote.count AS votes
ORDER BY path
