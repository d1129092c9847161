"use strict";

/*
 * From slots and rows (layout.js) to pixels: how far the neurons stand from each other in a frame,
 * and the curves between them.
 *
 * 1. A picture narrower or flatter than its frame is drawn out, up to a point; a wider one is drawn
 *    closer.
 * 2. Neurons that would touch their neighbours stand above and below their row's line by turns.
 * 3. Edges leave a neuron upwards and come to the next from below, side by side.
 */
(function () {
  const SLOT = 84; // pixels between neurons of a row
  const SLOT_LEAST = 44; // in a wide graph
  const SLOT_MOST = 2.4; // times SLOT, where there is room
  const ROW = 104; // pixels between rows
  const ROW_MANY = 88; // from MANY rows on
  const MANY = 9;
  const ROW_MOST = 1.7;
  const GAP = 10; // pixels between two neurons' squares
  const PORT = 7; // pixels between two edges' ends at a neuron

  /*
   * frame: {width, height} in pixels. scale: {whole, least, most}: a picture that fits at `whole` or
   * more is shown whole, no larger than `most`; others no smaller than `least`. times: {width,
   * height} asked for. side: pixels of a neuron's side.
   *
   * Gives {slot, slots, rows: the y of each row, above: room over the first y, high: all of it,
   * place: neuron -> {x, y}, raised: neuron -> whether it stands above its row's line}.
   */
  summit.room = function (picture, layers, frame, scale, times, side) {
    const slots = Math.max(...picture.neurons.map((neuron) => neuron.x)) + 1;
    const least = layers >= MANY ? ROW_MANY : ROW;
    const whole = Math.min(frame.width / (slots * SLOT), frame.height / (layers * least));
    const close =
      whole >= scale.whole ? SLOT : clamp(frame.width / (slots * scale.least), SLOT_LEAST, SLOT);
    const extra =
      2 * stagger(picture, layers, close, side).crowded.reduce((sum, far) => sum + far, 0);
    const wide = frame.width / (slots * close);
    const high = frame.height / (layers * least + extra);
    const slot = close * clamp(wide / Math.max(high, scale.least), 1, SLOT_MOST) * times.width;
    const free = (frame.height / Math.min(wide, scale.most) - extra) / layers;
    const row = clamp(free, least, least * ROW_MOST) * times.height;
    const { crowded, shift } = stagger(picture, layers, slot, side);
    const rows = new Array(layers).fill(0);
    for (let at = layers - 2; at >= 0; at -= 1) {
      rows[at] = rows[at + 1] + row + crowded[at + 1] + crowded[at];
    }
    return {
      slot,
      slots,
      rows,
      above: row / 2 + crowded[layers - 1],
      high: rows[0] + row + crowded[layers - 1] + crowded[0],
      place: (neuron) => ({ x: neuron.x * slot, y: rows[neuron.row] - shift.get(neuron) }),
      raised: (neuron) => shift.get(neuron) > 0,
    };
  };

  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  /* How far each row's neurons stand off its line, and each neuron above it. */
  function stagger(picture, layers, slot, side) {
    const crowded = new Array(layers).fill(0);
    const shift = new Map(picture.neurons.map((neuron) => [neuron, 0]));
    for (let at = 0; at < layers; at += 1) {
      const row = picture.neurons.filter((neuron) => neuron.row === at);
      row.sort((one, other) => one.x - other.x);
      const half = (place) => (side(row[place]) + side(row[place - 1])) / 2;
      const touches = row.map(
        (neuron, place) => place > 0 && (neuron.x - row[place - 1].x) * slot < half(place) + GAP,
      );
      touches.forEach((touch, place) => {
        if (touch) crowded[at] = Math.max(crowded[at], (half(place) + GAP) / 2);
      });
      let up = 1;
      row.forEach((neuron, place) => {
        if (!touches[place] && !touches[place + 1]) return;
        up = touches[place] ? -up : 1;
        shift.set(neuron, up * crowded[at]);
      });
    }
    return { crowded, shift };
  }

  /* The curve of each edge, as the `d` of a path. */
  summit.curves = function (picture, place, side) {
    const ports = portsOf(picture, side);
    const found = new Map();
    for (const edge of picture.edges) {
      const from = place(edge.source);
      const to = place(edge.target);
      const x1 = (from.x + ports.get(edge).source).toFixed(1);
      const x2 = (to.x + ports.get(edge).target).toFixed(1);
      const y1 = from.y - side(edge.source) / 2;
      const y2 = to.y + side(edge.target) / 2;
      const bend = Math.max((y1 - y2) * 0.5, 10);
      const handles = `${x1} ${(y1 - bend).toFixed(1)} ${x2} ${(y2 + bend).toFixed(1)}`;
      found.set(edge, `M${x1} ${y1.toFixed(1)}C${handles} ${x2} ${y2.toFixed(1)}`);
    }
    return found;
  };

  /* Where on a neuron's upper and lower side its edges end: in the order of the neurons they lead
     to, so that they do not cross right at the neuron. */
  function portsOf(picture, side) {
    const ports = new Map(picture.edges.map((edge) => [edge, {}]));
    const spread = (neuron, edges, end, other) => {
      const sorted = edges.slice();
      sorted.sort((one, next) => one[other].x - next[other].x || one[other].row - next[other].row);
      const room = Math.min(side(neuron) * 0.6, sorted.length * PORT);
      sorted.forEach((edge, number) => {
        ports.get(edge)[end] = ((number + 0.5) / sorted.length - 0.5) * room;
      });
    };
    for (const neuron of picture.neurons) {
      spread(neuron, neuron.targets, "source", "target");
      spread(neuron, neuron.sources, "target", "source");
    }
    return ports;
  }
})();
