// The edges of a class's attribution graph, the highest count first (docs/method.md, section 5).
//
// Parameters:
//   class (text): key of a class
// Columns:
//   source (text): key of the neuron of the earlier layer
//   target (text): key of the neuron of the later layer
//   count (integer): images of the class in which the source is among the target's strongest
//   share (number or null): count / images of the class
// In Neo4j Browser:
//   :param class => "digits/class/3";
MATCH (a:Neuron)-[e:INFLUENCES {class: $class, selected: true}]->(b:Neuron)
USING INDEX e:INFLUENCES(class, selected)
RETURN a.key AS source, b.key AS target, e.count AS count, e.share AS share
ORDER BY count DESC, a.index, b.index
