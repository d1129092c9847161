// The neurons that are active in nearly all images of nearly all classes.
//
// Classes without images are set aside. Source: docs/method.md, section 4.
//
// Parameters:
//   model (text): key of a model
//   image_share (share, 0.95): share of a class's images in which a neuron has to be active
//   class_share (share, 0.95): share of the classes in which it has to be so
// Columns:
//   neuron (text): its key
//   layer (text): its layer
//   channel (integer): its channel
//   classes (integer): classes in which it is active so often
//   of (integer): classes that have images
//   share (number): the mean of its shares in all of these
//   flagged (boolean): whether the atlas says that it is always active; below 10 classes it never
//     does
//   excluded (boolean): whether the ranking left it out
// Needs:
//   counts
// In Neo4j Browser:
//   :param model => "digits";
//   :param image_share => 0.95;
//   :param class_share => 0.95;
MATCH (m:Model {key: $model})-[:HAS_CLASS]->(c:Class)
USING INDEX m:Model(key)
WHERE c.images > 0
WITH collect(c) AS chosen
UNWIND chosen AS c
MATCH (c)-[a:ACTIVATES]->(n:Neuron)
WITH n, size(chosen) AS of, count(CASE WHEN a.share >= $image_share THEN 1 END) AS classes,
     sum(a.share) AS shares
WHERE toFloat(classes) / of >= $class_share
RETURN n.key AS neuron, n.layer AS layer, n.channel AS channel, classes, of, shares / of AS share,
       coalesce(n.always_active, false) AS flagged, coalesce(n.excluded, false) AS excluded
ORDER BY share DESC, n.index
