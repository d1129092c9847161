"use strict";

/*
 * Where the neurons of a picture stand: summit_graph/view/layout.py, operation by operation, so
 * that a class looks the same on a page, in a figure and in a notebook. That file tells the method;
 * change both or neither. The numbers are exactly equal: the same additions in the same order.
 */
(function () {
  const SWEEPS = 12;
  const SWAP_PASSES = 10;
  const RELAXATIONS = 16;

  /*
   * rows: the row of each node, 0 the lowest; nodes come in their order of importance.
   * edges: [source, target, weight] by the nodes' numbers. Gives {x, row} of each node; x in slots.
   */
  function layout(rows, edges) {
    const rowNumbers = [...new Set(rows)].sort((one, other) => one - other);
    const level = new Map(rowNumbers.map((row, at) => [row, at]));
    const levels = rows.map((row) => level.get(row));
    const order = rowNumbers.map(() => []);
    levels.forEach((at, node) => order[at].push(node));
    const x = placed(ordered(order, levels, edges), levels, edges);
    return rows.map((row, node) => ({ x: x[node], row }));
  }

  /* How many pairs of edges between the same two rows cross. */
  function crossings(order, levels, edges) {
    const place = places(order, levels.length);
    const between = new Map();
    for (const [source, target] of edges) {
      const up = levels[source] <= levels[target];
      const low = up ? source : target;
      const high = up ? target : source;
      const pair = levels[low] * order.length + levels[high];
      if (!between.has(pair)) between.set(pair, []);
      between.get(pair).push([place[low], place[high]]);
    }
    let total = 0;
    for (const ends of between.values()) {
      const seen = [];
      ends.sort((one, other) => one[0] - other[0] || one[1] - other[1]);
      for (const [, end] of ends) {
        const at = firstAbove(seen, end);
        total += seen.length - at;
        seen.splice(at, 0, end);
      }
    }
    return total;
  }

  function firstAbove(sorted, value) {
    let low = 0;
    let high = sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (value < sorted[middle]) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /* The nodes of each level from left to right, with few crossings. */
  function ordered(given, levels, edges) {
    const neighbours = neighboursOf(edges, levels.length);
    const order = given.map((nodes) => nodes.slice());
    let best = order.map((nodes) => nodes.slice());
    let fewest = crossings(order, levels, edges);
    for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
      if (fewest === 0) break;
      const upwards = sweep % 2 === 0;
      for (let step = 0; step < order.length; step += 1) {
        const at = upwards ? step : order.length - 1 - step;
        sortByNeighbours(order, at, levels, neighbours, upwards);
      }
      swap(order, levels, neighbours);
      const found = crossings(order, levels, edges);
      if (found < fewest) {
        best = order.map((nodes) => nodes.slice());
        fewest = found;
      }
    }
    return best;
  }

  /* [neighbour, weight] of each node, in the order of the edges. */
  function neighboursOf(edges, nodes) {
    const found = Array.from({ length: nodes }, () => []);
    for (const [source, target, weight] of edges) {
      found[source].push([target, weight]);
      found[target].push([source, weight]);
    }
    return found;
  }

  function places(order, nodes) {
    const place = new Array(nodes).fill(0);
    for (const level of order) {
      level.forEach((node, at) => {
        place[node] = at;
      });
    }
    return place;
  }

  function sortByNeighbours(order, at, levels, neighbours, upwards) {
    const middle = new Map();
    for (const level of order) {
      level.forEach((node, place) => middle.set(node, place - (level.length - 1) / 2));
    }
    const wanted = new Map();
    for (const node of order[at]) {
      let total = 0;
      let weights = 0;
      for (const [other, weight] of neighbours[node]) {
        const passed = upwards ? levels[other] < at : levels[other] > at;
        if (passed) {
          total += weight * middle.get(other);
          weights += weight;
        }
      }
      wanted.set(node, weights ? total / weights : middle.get(node));
    }
    order[at].sort((one, other) => wanted.get(one) - wanted.get(other));
  }

  /* Neighbours in a row change places as long as that takes away crossings. */
  function swap(order, levels, neighbours) {
    const place = places(order, levels.length);
    for (let pass = 0; pass < SWAP_PASSES; pass += 1) {
      let changed = false;
      for (const level of order) {
        for (let at = 0; at < level.length - 1; at += 1) {
          const left = level[at];
          const right = level[at + 1];
          const [now, then] = crossed(left, right, levels, neighbours, place);
          if (then < now) {
            level[at] = right;
            level[at + 1] = left;
            place[left] = at + 1;
            place[right] = at;
            changed = true;
          }
        }
      }
      if (!changed) return;
    }
  }

  function crossed(left, right, levels, neighbours, place) {
    let now = 0;
    let then = 0;
    for (const [first] of neighbours[left]) {
      for (const [second] of neighbours[right]) {
        if (levels[first] === levels[second]) {
          if (place[first] > place[second]) now += 1;
          if (place[first] < place[second]) then += 1;
        }
      }
    }
    return [now, then];
  }

  /* Places in slots, 0 at the left of the widest row, at least one slot apart in a row. */
  function placed(order, levels, edges) {
    const neighbours = neighboursOf(edges, levels.length);
    const widest = order.reduce((most, level) => Math.max(most, level.length), 0);
    const half = (widest - 1) / 2;
    const x = new Array(levels.length).fill(0);
    for (const level of order) {
      level.forEach((node, at) => {
        x[node] = at - (level.length - 1) / 2;
      });
    }
    for (let step = 0; step < RELAXATIONS; step += 1) {
      for (const level of step % 2 === 0 ? order : order.slice().reverse()) {
        const wanted = level.map((node, at) => {
          let total = 0;
          let weights = 0;
          for (const [other, weight] of neighbours[node]) {
            total += weight * x[other];
            weights += weight;
          }
          return (weights ? total / weights : x[node]) - at;
        });
        const rest = half - (level.length - 1);
        rising(wanted).forEach((value, at) => {
          x[level[at]] = Math.min(Math.max(value, -half), rest) + at;
        });
      }
    }
    return x.map((place) => place + half);
  }

  /* The rising sequence nearest by squares: neighbours that fall are pooled. */
  function rising(values) {
    const sums = [];
    const sizes = [];
    for (const value of values) {
      sums.push(value);
      sizes.push(1);
      let last = sums.length - 1;
      while (last > 0 && sums[last - 1] / sizes[last - 1] > sums[last] / sizes[last]) {
        sums[last - 1] += sums.pop();
        sizes[last - 1] += sizes.pop();
        last -= 1;
      }
    }
    return sums.flatMap((total, at) => new Array(sizes[at]).fill(total / sizes[at]));
  }

  summit.layout = layout;
})();
