// The layers of a model, in the order of the forward pass, and which feed which.
//
// Parameters:
//   model (text): key of a model
// Columns:
//   layer (text): its name
//   index (integer): its number in the forward pass, hidden layers counted
//   channels (integer): its neurons
//   height (integer or null): of its map, at the model's input size
//   width (integer or null): of its map
//   feeds (list of text): the layers that an edge of some class's graph leads to
// In Neo4j Browser:
//   :param model => "digits";
MATCH (m:Model {key: $model})-[:HAS_LAYER]->(l:Layer)
USING INDEX m:Model(key)
RETURN l.name AS layer, l.index AS index, l.channels AS channels, l.height AS height,
       l.width AS width,
       COLLECT { MATCH (l)-[:FEEDS]->(t:Layer) RETURN t.name ORDER BY t.index } AS feeds
ORDER BY index
