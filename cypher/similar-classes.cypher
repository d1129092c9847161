// The classes most alike in one layer: whose activations there are nearest to those of a class.
//
// Alike is the cosine of how often each channel is active (docs/method.md, section 6). 50 are kept.
//
// Parameters:
//   class (text): key of a class
//   layer (text): name of a layer
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
//   :param layer => "conv3";
//   :param limit => 10;
MATCH (c:Class {key: $class})-[s:SIMILAR_TO]->(o:Class)
USING INDEX c:Class(key)
WHERE s.layer = $layer
RETURN o.key AS class, o.index AS index, o.name AS name, s.cosine AS cosine
ORDER BY cosine DESC, index
LIMIT $limit
