// The edges of a class's attribution graph that are unlike those of similar classes.
//
// An edge's share is compared with its mean share in the classes most alike overall, 0 where one
// has no such edge in all of its graph. No rows: no similar class is known.
//
// Parameters:
//   class (text): key of a class
//   similar (count, 5): how many of the most similar classes to compare with
//   limit (count, 20): rows at most
// Columns:
//   source (text): key of the neuron of the earlier layer
//   target (text): key of the neuron of the later layer
//   count (integer): images of the class in which the source is among the target's strongest
//   share (number): count / images of the class
//   elsewhere (number): the mean share in the similar classes
//   difference (number): share - elsewhere, -1 to 1; rows come by how far it is from 0
//   lacking (integer): similar classes without this edge
//   of (integer): similar classes that were compared
// Needs:
//   edges
//   counts
// In Neo4j Browser:
//   :param class => "digits/class/3";
//   :param similar => 5;
//   :param limit => 20;
MATCH (c:Class {key: $class})-[s:SIMILAR_TO]->(o)
USING INDEX c:Class(key)
WHERE s.layer IS NULL AND o.images > 0
WITH o
ORDER BY s.cosine DESC, o.index
LIMIT $similar
WITH collect(o.key) AS others
CALL (others) {
  MATCH (a:Neuron)-[e:INFLUENCES {class: $class, selected: true}]->(b:Neuron)
  USING INDEX e:INFLUENCES(class, selected)
  RETURN a, b, e, 0.0 AS share, 0 AS there
UNION ALL
  UNWIND others AS other
  MATCH (a:Neuron)-[e:INFLUENCES {class: $class, selected: true}]->(b:Neuron)
  USING INDEX e:INFLUENCES(class, selected)
  MATCH (a)-[o:INFLUENCES {class: other}]->(b)
  USING INDEX o:INFLUENCES(class)
  RETURN a, b, e, o.share AS share, 1 AS there
}
WITH size(others) AS of, a, b, e, sum(share) AS shares, sum(there) AS there
WHERE of > 0
WITH a, b, e, shares / of AS elsewhere, of - there AS lacking, of
WITH a, b, e, elsewhere, e.share - elsewhere AS difference, lacking, of
RETURN a.key AS source, b.key AS target, e.count AS count, e.share AS share, elsewhere, difference,
       lacking, of
ORDER BY abs(difference) DESC, a.index, b.index
LIMIT $limit
