"use strict";

/*
 * What a picture shows: the attribution graph of one class, or of two laid over each other.
 *
 *   neurons  {name, layer, channel, of, strength, records: [first's, second's], rank, x, row,
 *            sources, targets}; of is "first", "second" or "both"; sources and targets are edges,
 *            the strongest first
 *   edges    {source, target (neurons), of, strength, counts: [first's, second's]}
 *
 * strength is count / largest count in the class's graph, the larger of the two: it gives size,
 * width and what the least influence hides. So classes with many and with few images compare.
 */
(function () {
  summit.picture = function (overview, first, second) {
    const neurons = new Map();
    const edges = new Map();
    [first, second].forEach((data, side) => {
      if (data) add(data, side, overview, neurons, edges);
    });
    const found = [...neurons.values()];
    if (second)
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
        (edge.counts[0] || 0) + (edge.counts[1] || 0),
      ]),
    );
    found.forEach((neuron, at) => Object.assign(neuron, places[at]));
    const sorted = [...edges.values()].sort((one, other) => other.strength - one.strength);
    for (const edge of sorted) {
      edge.source.targets.push(edge);
      edge.target.sources.push(edge);
    }
    return {
      neurons: found,
      edges: sorted,
      byName: new Map(found.map((neuron) => [neuron.name, neuron])),
    };
  };

  function add(data, side, overview, neurons, edges) {
    const most = Math.max(0, ...data.neurons.map((neuron) => neuron.count));
    const mine = data.neurons.map((record) => {
      const name = `${overview.layers[record.layer].name}/${record.channel}`;
      if (!neurons.has(name)) {
        const { layer, channel } = record;
        const blank = {
          of: null,
          strength: 0,
          pagerank: 0,
          records: [null, null],
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
        edges.set(name, { source, target, of: null, strength: 0, counts: [null, null] });
      const edge = edges.get(name);
      edge.counts[side] = count;
      edge.of = belongs(edge.counts);
      edge.strength = Math.max(edge.strength, count / strongest);
    }
  }

  function belongs([first, second]) {
    if (first !== null && second !== null) return "both";
    return first !== null ? "first" : "second";
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
