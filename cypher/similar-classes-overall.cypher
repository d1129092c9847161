// The classes most alike overall: whose activations are nearest to those of a class.
//
// Alike is the cosine of how often each channel is active, its mean over the layers. 50 are kept.
// Source: docs/method.md, section 6.
//
// Parameters:
//   class (text): key of a class
//   limit (count, 10): rows at most
// Columns:
//   class (text): key of the other class
//   index (integer): its number
//   name (text): its name
//   cosine (number): 0 to 1, 1 where they are alike
// Needs:
//   counts
// In Neo4j Browser:
//   :param class => "digits/class/3";
//   :param limit => 10;
MATCH (c:Class {key: $class})-[s:SIMILAR_TO]->(o:Class)
USING INDEX c:Class(key)
WHERE s.layer IS NULL
RETURN o.key AS class, o.index AS index, o.name AS name, s.cosine AS cosine
ORDER BY cosine DESC, index
LIMIT $limit
