// The strongest influences on a neuron and of it, in all of a class's graph.
//
// Source: docs/method.md, section 4.
//
// Parameters:
//   neuron (text): key of a neuron
//   class (text): key of a class
//   limit (count, 10): rows at most, of each of the two directions
// Columns:
//   direction (text): 'source' if the edge leads to the neuron, 'target' if it comes from it
//   source (text): key of the neuron of the earlier layer
//   target (text): key of the neuron of the later layer
//   count (integer): images of the class in which the source is among the target's strongest
//   share (number or null): count / images of the class
//   selected (boolean): whether the edge is in the attribution graph
// Needs:
//   edges
// In Neo4j Browser:
//   :param neuron => "digits/conv3/22";
//   :param class => "digits/class/3";
//   :param limit => 10;
MATCH (n:Neuron {key: $neuron})
CALL (n) {
  MATCH (n)<-[e:INFLUENCES]-(a:Neuron)
  WHERE e.class = $class
  RETURN 'source' AS direction, a, e, n AS b
  ORDER BY e.count DESC, a.index
  LIMIT $limit
UNION ALL
  MATCH (n)-[e:INFLUENCES]->(b:Neuron)
  WHERE e.class = $class
  RETURN 'target' AS direction, n AS a, e, b
  ORDER BY e.count DESC, b.index
  LIMIT $limit
}
RETURN direction, a.key AS source, b.key AS target, e.count AS count, e.share AS share,
       coalesce(e.selected, false) AS selected
ORDER BY direction, count DESC, a.index, b.index
