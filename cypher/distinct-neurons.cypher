// What sets a class apart: the neurons of its attribution graph that those of other classes lack.
//
// Parameters:
//   class (text): key of a class
//   others (list of text or null, null): keys of classes of the same model; null: all the others
// Columns:
//   neuron (text): its key
//   layer (text): its layer
//   channel (integer): its channel
//   pagerank (number): its PageRank in the class's graph
//   rank (integer): its place by PageRank, 1 the highest
//   count (integer): images of the class in which it is active
//   share (number or null): count / images of the class
//   nearest (text or null): key of the other class that ranks it highest
//   nearest_rank (integer or null): its place there
// In Neo4j Browser:
//   :param class => "digits/class/3";
//   :param others => null;
MATCH (c:Class {key: $class})-[a:ATTRIBUTES]->(n:Neuron)
USING INDEX c:Class(key)
WHERE NOT EXISTS {
  MATCH (n)<-[:ATTRIBUTES]-(o:Class)
  WHERE o <> c AND ($others IS NULL OR o.key IN $others)
}
CALL (c, n) {
  MATCH (n)<-[r:RANKS]-(o:Class)
  WHERE o <> c AND ($others IS NULL OR o.key IN $others)
  WITH r, o
  ORDER BY r.rank, o.index
  LIMIT 1
  RETURN collect({class: o.key, rank: r.rank})[0] AS nearest
}
RETURN n.key AS neuron, n.layer AS layer, n.channel AS channel, a.pagerank AS pagerank,
       a.rank AS rank, a.count AS count, toFloat(a.count) / c.images AS share,
       nearest.class AS nearest, nearest.rank AS nearest_rank
ORDER BY rank
