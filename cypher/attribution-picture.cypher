// A class's attribution graph as nodes and relationships, which Neo4j Browser draws.
//
// The class stands where the votes of its neurons lead. Neurons without an edge are drawn too.
// Unless told `:config autoComplete: false` ('Connect result nodes' in its settings), Neo4j Browser
// adds the influences of all other classes between the same neurons.
//
// Parameters:
//   class (text): key of a class
// Columns:
//   start (node): a neuron, or the class where it stands alone
//   edge (relationship or null): its influence on another neuron, or its votes for the class
//   end (node or null): that neuron, or the class
// In Neo4j Browser:
//   :param class => "digits/class/3";
CALL () {
  MATCH (start:Neuron)-[edge:INFLUENCES {class: $class, selected: true}]->(end:Neuron)
  USING INDEX edge:INFLUENCES(class, selected)
  RETURN start, edge, end
UNION ALL
  MATCH (end:Class {key: $class})-[:ATTRIBUTES]->(start:Neuron)
  USING INDEX end:Class(key)
  OPTIONAL MATCH (start)-[edge:VOTES_FOR]->(end)
  RETURN start, edge, CASE WHEN edge IS NULL THEN null ELSE end END AS end
UNION ALL
  MATCH (start:Class {key: $class})
  RETURN start, null AS edge, null AS end
}
RETURN start, edge, end
