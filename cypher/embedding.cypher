// Where the classes stand in a layer: near each other if they activate alike.
//
// x and y have no unit. All layers share their axes, so places can be compared between them
// (docs/method.md, section 6). No rows: the atlas was made without an embedding.
//
// Parameters:
//   model (text): key of a model
//   layer (text): name of a layer
// Columns:
//   class (text): key of the class; one that no neuron of the layer is active for is left out
//   index (integer): its number
//   name (text): its name
//   x (number): to the right
//   y (number): upwards
// Needs:
//   counts
// In Neo4j Browser:
//   :param model => "digits";
//   :param layer => "conv3";
MATCH (m:Model {key: $model})-[:HAS_LAYER]->(l:Layer)
USING INDEX m:Model(key)
WHERE l.name = $layer
MATCH (c:Class)-[p:PLACED_IN]->(l)
RETURN c.key AS class, c.index AS index, c.name AS name, p.x AS x, p.y AS y
ORDER BY index
