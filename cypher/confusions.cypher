// What other classes a class's images are taken for, the most frequent first.
//
// Of a model whose classes are its predictions: what they are instead. Source: docs/method.md,
// section 6.
//
// Parameters:
//   class (text): key of a class
// Columns:
//   class (text or null): key of the other class; null: none of the classes
//   index (integer): its number, -1 for none
//   name (text or null): its name
//   count (integer): images
//   share (number or null): count / images of the class
// Needs:
//   counts
// In Neo4j Browser:
//   :param class => "digits/class/3";
MATCH (c:Class {key: $class})
CALL (c) {
  MATCH (c)-[x:CONFUSED_WITH]->(o:Class)
  RETURN o.key AS class, o.index AS index, o.name AS name, x.count AS count
UNION ALL
  WITH c
  WHERE c.confused_with_none > 0
  RETURN null AS class, -1 AS index, null AS name, c.confused_with_none AS count
}
RETURN class, index, name, count, toFloat(count) / c.images AS share
ORDER BY count DESC, index
