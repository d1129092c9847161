"use strict";

/*
 * The embedding: each class a point, classes that use a layer alike close together. Another layer
 * moves the points. Points and names keep their size on the screen when one zooms.
 */
(function () {
  const { el, svg } = summit;
  const MOVE = 700; // milliseconds from layer to layer
  const NEAREST = 10;
  const NAMES = 40; // at most
  const CLOSE = 60; // with no more points in sight, all names may show
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");

  let overview;
  let root;
  let zoom;
  let data = null;
  const points = new Map(); // class index -> {circle, x, y: in -1..1, from, to, shown}
  let layerNow = null;
  let unit = 100; // pixels of 1 at zoom 1
  let bounds = { x: 0, y: 0, wide: 1, high: 1 }; // middle and half sides, over all layers together
  let hovered = null;
  let frame = null;
  let moving = null;
  let state = {};
  let near = new Set();
  let marked = new Set(); // classes whose points bear a mark
  let entered = null;
  const marks = svg("g");
  const dots = svg("g", { role: "listbox", "aria-label": "Classes" });
  const names = svg("g", { class: "names", "aria-hidden": "true" });

  function start(given) {
    overview = given;
    root = document.getElementById("embedding");
    zoom = summit.zoomable(root, { least: 0.5, most: 40, changed: draw });
    root.append(marks, dots, names);
    const picker = document.getElementById("layer");
    overview.layers.forEach((layer) =>
      picker.append(el("option", { value: layer.name }, layer.name)),
    );
    picker.addEventListener("change", () => summit.update({ layer: picker.value }));
    const step = (by) => () => {
      const next = overview.layers[layerNow + by];
      if (next) summit.update({ layer: next.name });
    };
    document.getElementById("layer-before").addEventListener("click", step(-1));
    document.getElementById("layer-after").addEventListener("click", step(1));
    document.getElementById("embedding-in").addEventListener("click", () => zoom.by(1.4));
    document.getElementById("embedding-out").addEventListener("click", () => zoom.by(1 / 1.4));
    document.getElementById("embedding-fit").addEventListener("click", fit);
    document.getElementById("embedding-large").addEventListener("click", () => {
      summit.update({ view: summit.state.view === "embedding" ? "graph" : "embedding" }, true);
    });
    root.addEventListener("pointerover", (event) => hover(event.target.dataset.class));
    root.addEventListener("pointerleave", () => hover(undefined));
    root.addEventListener("click", (event) => {
      if (event.target.dataset.class) summit.choose(Number(event.target.dataset.class));
    });
    root.addEventListener("keydown", key);
    // Not on the picture itself: Chromium takes an SVG that listens to the focus for a stop of Tab.
    root.parentElement.addEventListener("focusin", (event) => hover(event.target.dataset.class));
    root.parentElement.addEventListener("focusout", () => hover(undefined));
    new ResizeObserver(() => resized()).observe(root);
    const empty = document.getElementById("embedding-empty");
    if (!overview.hasEmbedding) {
      document.getElementById("embedding-view").classList.add("none");
      empty.hidden = false;
      empty.textContent = overview.partial
        ? "No embedding: published graphs do not say where the classes stand."
        : overview.classes.index.length < 2
          ? "An embedding needs two classes or more."
          : "No embedding yet. Run summit-graph rank on the atlas, then write these pages again.";
    }
  }

  /* Called once the first picture stands: the embedding of 1,000 classes must not hold it up. */
  async function fetch() {
    if (!overview.hasEmbedding) return;
    const empty = document.getElementById("embedding-empty");
    try {
      data = await summit.load("embedding");
    } catch (error) {
      empty.hidden = false;
      empty.textContent = error.message;
      return;
    }
    empty.hidden = true;
    bounds = boundsOf(data.layers.flatMap((layer) => layer.points));
    const many = overview.classes.index.length > 150;
    root.classList.toggle("many", many);
    overview.classes.index.forEach((index, at) => {
      const circle = svg("circle", {
        class: "point",
        "data-class": index,
        r: many ? 3 : 5,
        tabindex: -1,
        role: "option",
        "aria-label": overview.classes.name[at],
      });
      points.set(index, {
        index,
        name: overview.classes.name[at],
        circle,
        x: 0,
        y: 0,
        shown: false,
      });
      dots.append(circle);
    });
    resized();
    show(summit.state);
  }

  function boundsOf(all) {
    const side = (at) => {
      const low = all.reduce((least, point) => Math.min(least, point[at]), Infinity);
      const high = all.reduce((most, point) => Math.max(most, point[at]), -Infinity);
      return [(low + high) / 2, Math.max((high - low) / 2, 0.05)];
    };
    if (!all.length) return bounds;
    const [x, wide] = side(1);
    const [y, high] = side(2);
    return { x, y, wide, high };
  }

  function show(given) {
    state = given;
    const large = state.view === "embedding";
    const button = document.getElementById("embedding-large");
    button.setAttribute("aria-pressed", String(large));
    if (!data) return;
    const wanted = summit.layerPlace(state.layer);
    if (wanted !== layerNow) toLayer(wanted);
    near = new Set(nearest().map(([index]) => index));
    const now = new Set([...near, ...state.with, state.class]);
    for (const index of new Set([...marked, ...now])) {
      const point = points.get(index);
      if (!point) continue;
      const chosen = index === state.class;
      point.circle.classList.toggle("chosen", chosen);
      for (const kind of ["second", "third", "fourth"])
        point.circle.classList.toggle(kind, summit.kindOf(state, index) === kind);
      point.circle.classList.toggle("near", near.has(index));
      point.circle.setAttribute("aria-selected", String(chosen));
    }
    marked = now;
    const mine = points.get(state.class);
    enter(mine && mine.shown ? mine : [...points.values()].find((point) => point.shown));
    // What stands out is drawn last, above the rest.
    for (const index of [...near, ...state.with, state.class]) {
      const point = points.get(index);
      if (point) dots.append(point.circle);
    }
    draw();
  }

  /* The one point that Tab comes to. */
  function enter(point) {
    if (entered) entered.circle.tabIndex = -1;
    entered = point;
    if (point) point.circle.tabIndex = 0;
  }

  /* The classes nearest to the chosen one in the layer: by cosine; else as they stand here. */
  function nearest() {
    const chosen = summit.have(`class-${state.class}`);
    const listed = chosen && chosen.similar && chosen.similar.layers[layerNow];
    if (listed) return listed.slice(0, NEAREST);
    const me = points.get(state.class);
    if (!me || !me.shown) return [];
    const far = (point) => Math.hypot(point.to[0] - me.to[0], point.to[1] - me.to[1]);
    return [...points.values()]
      .filter((point) => point.shown && point !== me)
      .sort((one, other) => far(one) - far(other))
      .slice(0, NEAREST)
      .map((point) => [point.index, null]);
  }

  function toLayer(wanted) {
    const first = layerNow === null;
    layerNow = wanted;
    document.getElementById("layer").value = overview.layers[wanted].name;
    document.getElementById("layer-before").disabled = wanted === 0;
    document.getElementById("layer-after").disabled = wanted === overview.layers.length - 1;
    const found = data.layers.find((entry) => entry.layer === wanted);
    const standing = new Map((found ? found.points : []).map(([index, x, y]) => [index, [x, y]]));
    const empty = document.getElementById("embedding-empty");
    empty.hidden = standing.size > 0;
    if (!standing.size)
      empty.textContent = `No class has an active neuron in ${overview.layers[wanted].name}.`;
    for (const point of points.values()) {
      const to = standing.get(point.index);
      const was = point.shown;
      point.shown = Boolean(to);
      point.circle.toggleAttribute("hidden", !to);
      if (!to) continue;
      point.to = to;
      point.from = was ? [point.x, point.y] : to;
    }
    cancelAnimationFrame(moving);
    if (first || still.matches) return settle(1);
    const begun = performance.now();
    const step = (now) => {
      const t = Math.min(Math.max((now - begun) / MOVE, 0), 1);
      settle(t < 0.5 ? 4 * t ** 3 : 1 - (2 - 2 * t) ** 3 / 2);
      if (t < 1) moving = requestAnimationFrame(step);
    };
    moving = requestAnimationFrame(step);
  }

  function settle(part) {
    for (const point of points.values()) {
      if (!point.shown) continue;
      point.x = point.from[0] + (point.to[0] - point.from[0]) * part;
      point.y = point.from[1] + (point.to[1] - point.from[1]) * part;
    }
    draw();
  }

  function resized() {
    const { width, height } = root.getBoundingClientRect();
    if (!width || !height) return;
    const fits = Math.min((width / 2 - 34) / bounds.wide, (height / 2 - 20) / bounds.high);
    unit = Math.max(fits, 20);
    if (zoom.touched) draw();
    else fit();
  }

  function fit() {
    const { width, height } = root.getBoundingClientRect();
    zoom.touched = false;
    zoom.set({ x: width / 2 - bounds.x * unit, y: height / 2 + bounds.y * unit, k: 1 });
  }

  /* At most once a frame, however many events ask for it. */
  function draw() {
    if (frame || !data) return;
    frame = requestAnimationFrame(() => {
      frame = null;
      place();
    });
  }

  function place() {
    const { x, y, k } = zoom.view;
    const scale = unit * k;
    for (const point of points.values()) {
      if (!point.shown) continue;
      point.left = (x + point.x * scale).toFixed(1);
      point.top = (y - point.y * scale).toFixed(1);
      point.circle.setAttribute("cx", point.left);
      point.circle.setAttribute("cy", point.top);
    }
    const chosen = points.get(state.class);
    marks.replaceChildren();
    if (chosen && chosen.shown)
      marks.append(svg("circle", { class: "ring", cx: chosen.left, cy: chosen.top, r: 10 }));
    label();
  }

  /* Names where they have room: the chosen, the compared and the hovered class first, then the
     nearest, then, when few are in sight, the others. */
  function label() {
    const { width, height } = root.getBoundingClientRect();
    const inside = [...points.values()].filter((point) => {
      const left = Number(point.left);
      const top = Number(point.top);
      return point.shown && left > -5 && top > -5 && left < width + 5 && top < height + 5;
    });
    const first = [hovered, state.class, ...state.with].map((index) => points.get(index));
    const close = inside.length <= CLOSE;
    const others = inside
      .filter((point) => close || near.has(point.index))
      .sort((one, other) => Number(near.has(other.index)) - Number(near.has(one.index)));
    const wanted = [
      ...new Set([...first.filter((point) => point && inside.includes(point)), ...others]),
    ];
    // Where few stand, a name keeps off the other points too.
    const boxes = close
      ? inside.map((point) => around(point, point.index === state.class ? 9 : 3))
      : [];
    const found = [];
    for (const point of wanted) {
      if (found.length >= NAMES) break;
      const text = point.name.length > 26 ? `${point.name.slice(0, 25)}…` : point.name;
      const wide = text.length * 6.2 + 4;
      const left = Number(point.left);
      const top = Number(point.top);
      // Right of the point, else left of it, above or below: the first that is free.
      const gap = point.index === state.class ? 12 : 7;
      const tries = [
        [left + gap, top + 4, "start"],
        [left - gap, top + 4, "end"],
        [left, top - gap - 2, "middle"],
        [left, top + gap + 10, "middle"],
        [left + gap - 3, top - gap + 1, "start"],
        [left + gap - 3, top + gap + 7, "start"],
        [left - gap + 3, top - gap + 1, "end"],
        [left - gap + 3, top + gap + 7, "end"],
      ];
      for (const [at, base, anchor] of tries) {
        const begin = anchor === "start" ? at : anchor === "end" ? at - wide : at - wide / 2;
        const box = [begin, base - 11, begin + wide, base + 3];
        if (box[0] < 0 || box[2] > width || box[1] < 0 || box[3] > height) continue;
        if (
          boxes.some(
            (one) => box[0] < one[2] && box[2] > one[0] && box[1] < one[3] && box[3] > one[1],
          )
        )
          continue;
        boxes.push(box);
        const kind =
          point.index === state.class
            ? "chosen"
            : (summit.kindOf(state, point.index) ?? (near.has(point.index) ? "near" : null));
        found.push(
          svg(
            "text",
            { x: at.toFixed(1), y: base.toFixed(1), "text-anchor": anchor, class: kind },
            text,
          ),
        );
        break;
      }
    }
    names.replaceChildren(...found);
  }

  function around(point, far) {
    return [point.left - far, point.top - far, Number(point.left) + far, Number(point.top) + far];
  }

  function hover(index) {
    const wanted = index === undefined ? null : Number(index);
    if (wanted === hovered) return;
    const before = points.get(hovered);
    if (before) before.circle.classList.remove("hovered");
    hovered = wanted;
    const point = points.get(hovered);
    if (point) point.circle.classList.add("hovered");
    draw();
  }

  /* Arrow keys go to the nearest point on that side. */
  function key(event) {
    if (zoom.key(event)) return;
    if (event.key === "0") return fit();
    const index = event.target.dataset.class;
    if (index === undefined) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      return summit.choose(Number(index));
    }
    const side = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[
      event.key
    ];
    if (!side) return;
    event.preventDefault();
    const me = points.get(Number(index));
    let best = null;
    let least = Infinity;
    for (const point of points.values()) {
      const [x, y] = [point.x - me.x, point.y - me.y];
      const ahead = x * side[0] + y * side[1];
      const aside = Math.abs(x * side[1]) + Math.abs(y * side[0]);
      if (!point.shown || ahead <= 0) continue;
      const cost = ahead + 2 * aside;
      if (cost < least) [best, least] = [point, cost];
    }
    if (!best) return;
    enter(best);
    best.circle.focus({ preventScroll: true });
  }

  /* Another view points at a class, as the pointer does here. */
  summit.embedding = {
    start,
    fetch,
    show,
    point: (index) => hover(index === null ? undefined : index),
  };
})();
