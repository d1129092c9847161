// Which kinds of nodes and relationships the database has, and how they join.
//
// Neo4j Browser draws it. It covers the whole database, other data too if there are any.
//
// Columns:
//   start (node): a kind of node
//   relationship (relationship): a kind of relationship from it
//   end (node): the kind of node it leads to
CALL db.schema.visualization() YIELD relationships
UNWIND relationships AS relationship
WITH startNode(relationship) AS start, relationship, endNode(relationship) AS end
RETURN start, relationship, end
ORDER BY labels(start)[0], type(relationship), labels(end)[0]
