// The classes whose name has a text in it, or whose synset is that text, whatever the case.
//
// Exact names come first, then names that begin with the text; an empty text finds all.
//
// Parameters:
//   name (text): part of a name, or a synset
//   model (text or null, null): key of a model; null: in all
//   limit (count, 1000): rows at most
// Columns:
//   class (text): its key, which the other queries take
//   name (text): its name
//   synset (text or null): its synset
//   index (integer): its number in the model
//   images (integer or null): its images
//   top1 (number or null): share of them that the model gets right
//   neurons (integer or null): neurons of its attribution graph
//   edges (integer or null): edges of its attribution graph
//   model (text): key of its model
// In Neo4j Browser:
//   :param name => "wolf";
//   :param model => null;
//   :param limit => 1000;
CALL () {
  WITH $model AS key WHERE key IS NOT NULL
  MATCH (m:Model {key: $model})
  RETURN m
UNION ALL
  WITH $model AS key WHERE key IS NULL
  MATCH (m:Model)
  WHERE m.loaded = true
  RETURN m
}
MATCH (m)-[:HAS_CLASS]->(c:Class)
WITH m, c, toLower(c.name) AS name, toLower($name) AS text
WHERE name CONTAINS text OR toLower(c.synset) = text
RETURN c.key AS class, c.name AS name, c.synset AS synset, c.index AS index, c.images AS images,
       c.top1 AS top1, c.neurons AS neurons, c.edges AS edges, m.key AS model
ORDER BY toLower(c.name) <> toLower($name), NOT toLower(c.name) STARTS WITH toLower($name), model,
         index
LIMIT $limit
