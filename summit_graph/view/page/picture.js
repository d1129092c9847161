"use strict";

/*
 * What a picture shows: the attribution graph of one class, or of several laid over each other.
 *
 *   classes  indices of the classes; the first is the chosen one
 *   compared whether the graphs of two or more are in it
 *   neurons  {name, layer, channel, of, strength, records: one of each class or null, rank, x, row,
 *            sources, targets}; of is "first" to "fourth", or "shared" by two classes or more;
 *            sources and targets are edges, the strongest first
 *   edges    {source, target (neurons), of, strength, counts: one of each class or null}
 *
 * strength is count / largest count in the class's graph, the largest of them: it gives size,
 * width and what the least influence hides. So classes with many and with few images compare.
 */
(function () {
  const PLACES = ["first", "second", "third", "fourth"];

  /* What tells a class apart in colour, by its place in the picture; null for one that is not in it. */
  summit.kindOf = (state, index) => PLACES[[state.class, ...state.with].indexOf(index)] ?? null;

  /* given: the data of each class, null where it has no graph. */
  summit.picture = function (overview, classes, given) {
    const neurons = new Map();
    const edges = new Map();
    given.forEach((data, side) => {
      if (data) add(data, side, given.length, overview, neurons, edges);
    });
    const found = [...neurons.values()];
    const compared = given.filter(Boolean).length > 1;
    if (compared)
      found.sort(
        (one, other) =>
          other.pagerank - one.pagerank || one.layer - other.layer || one.channel - other.channel,
      );
    const number = new Map(found.map((neuron, at) => [neuron, at]));
    const places = summit.layout(
      found.map((neuron) => neuron.layer),
      [...edges.values()].map((edge) => [
        number.get(edge.source),
        number.get(edge.target),
        edge.counts.reduce((sum, count) => sum + (count || 0), 0),
      ]),
    );
    found.forEach((neuron, at) => Object.assign(neuron, places[at]));
    const sorted = [...edges.values()].sort((one, other) => other.strength - one.strength);
    for (const edge of sorted) {
      edge.source.targets.push(edge);
      edge.target.sources.push(edge);
    }
    return {
      classes,
      compared,
      neurons: found,
      edges: sorted,
      byName: new Map(found.map((neuron) => [neuron.name, neuron])),
    };
  };

  function add(data, side, sides, overview, neurons, edges) {
    const most = Math.max(0, ...data.neurons.map((neuron) => neuron.count));
    const mine = data.neurons.map((record) => {
      const name = `${overview.layers[record.layer].name}/${record.channel}`;
      if (!neurons.has(name)) {
        const { layer, channel } = record;
        const blank = {
          of: null,
          strength: 0,
          pagerank: 0,
          records: new Array(sides).fill(null),
          sources: [],
          targets: [],
        };
        neurons.set(name, { name, layer, channel, ...blank });
      }
      const neuron = neurons.get(name);
      neuron.records[side] = record;
      neuron.of = belongs(neuron.records);
      neuron.pagerank += record.pagerank;
      neuron.strength = Math.max(neuron.strength, most ? record.count / most : 0);
      return neuron;
    });
    const strongest = Math.max(0, ...data.edges.map((edge) => edge[2]));
    for (const [from, to, count] of data.edges) {
      const source = mine[from];
      const target = mine[to];
      const name = `${source.name} ${target.name}`;
      if (!edges.has(name))
        edges.set(name, {
          source,
          target,
          of: null,
          strength: 0,
          counts: new Array(sides).fill(null),
        });
      const edge = edges.get(name);
      edge.counts[side] = count;
      edge.of = belongs(edge.counts);
      edge.strength = Math.max(edge.strength, count / strongest);
    }
  }

  function belongs(each) {
    const owners = each.flatMap((one, side) => (one === null ? [] : [side]));
    return owners.length > 1 ? "shared" : PLACES[owners[0]];
  }

  /* A neuron's or edge's share of a class's images; null where the images are not known. */
  summit.shareOf = function (overview, index, count) {
    const images = overview.classes.images[summit.place(index)];
    return images ? count / images : null;
  };

  /* "53 % of its images", or the count where the images are not known. */
  summit.amount = function (overview, index, count) {
    const share = summit.shareOf(overview, index, count);
    return share === null ? summit.plural(count, "image") : `${summit.percent(share)} of images`;
  };
})();
