// The neurons that speak for a class: the strongest sources of its logit.
//
// Source: docs/method.md, section 6.
//
// Parameters:
//   class (text): key of a class
//   limit (count, 20): rows at most
// Columns:
//   neuron (text): its key
//   layer (text): its layer
//   channel (integer): its channel
//   count (integer): images of the class in which it is among the logit's strongest sources
//   share (number or null): count / images of the class
//   selected (boolean): whether the class's attribution graph has it
// Needs:
//   counts
// In Neo4j Browser:
//   :param class => "digits/class/3";
//   :param limit => 20;
MATCH (c:Class {key: $class})<-[v:VOTES_FOR]-(n:Neuron)
USING INDEX c:Class(key)
WITH c, v, n
ORDER BY v.count DESC, n.index
LIMIT $limit
RETURN n.key AS neuron, n.layer AS layer, n.channel AS channel, v.count AS count, v.share AS share,
       EXISTS { (c)-[:ATTRIBUTES]->(n) } AS selected
ORDER BY count DESC, n.index
