// The models in the database: what they were counted on, and how much of them is there.
//
// A model whose `loaded` is false is being loaded, or its loading was cut off.
//
// Columns:
//   model (text): its key
//   name (text): what it is called
//   loaded (boolean): whether it is whole
//   edges (text): 'graph' if all edges of every class's graph are there, 'attribution' if only
//     those of the attribution graphs
//   partial (boolean): whether it lacks part of what a counted atlas has
//   dataset (text or null): the images it was counted on
//   grouping (text or null): what put images into classes
//   images (integer or null): how many they were
//   layers (integer): chosen layers
//   neurons (integer): channels of these layers
//   classes (integer): classes
//   mass (number or null): of PageRank, that attribution graphs were asked to hold
//   damping (number or null): of that PageRank
MATCH (m:Model)
WHERE m.loaded IS NOT NULL
RETURN m.key AS model, m.name AS name, m.loaded AS loaded, m.edges AS edges,
       coalesce(m.partial, false) AS partial, m.dataset AS dataset, m.grouping AS grouping,
       m.images AS images, COUNT { (m)-[:HAS_LAYER]->() } AS layers,
       COUNT { (m)-[:HAS_LAYER]->()-[:HAS_NEURON]->() } AS neurons,
       COUNT { (m)-[:HAS_CLASS]->() } AS classes, m.mass AS mass, m.damping AS damping
ORDER BY model
