"use strict";

/*
 * The attribution graph: a row a layer, the first at the bottom; a neuron is its feature
 * visualisation, its size by count; an edge's width by influence. Names of the layers stand still at
 * the left while the picture is zoomed and moved.
 */
(function () {
  const { svg } = summit;

  // As in summit_graph/view/appearance.py.
  const SIDE = [28, 72];
  const WIDTH = [0.75, 6];
  const OPACITY = [0.35, 0.8];

  // How large the picture is at first. A small one is not blown up beyond `most`; one that would be
  // smaller than `whole` is shown at `least`: it goes on below, and says so.
  const SCALE = { whole: 0.43, least: 0.6, most: 1.35 };

  let overview;
  let root;
  let zoom;
  let picture = null;
  let key = "";
  let box = { width: 0, height: 0 };
  let room = { rows: [] }; // where the neurons stand: room.js
  let state = {};
  let seen = null; // the chosen neuron that was brought into sight
  let pointed = null; // {neuron} or {edge} under pointer or focus
  const rowsLayer = svg("g", { class: "rows", "aria-hidden": "true" });
  const scene = svg("g", { class: "scene" });
  const rowNames = svg("g", { class: "row-names", "aria-hidden": "true" });
  let nodes = new Map(); // neuron -> <g>
  let lines = new Map(); // edge -> {line, hit}

  const between = ([low, high], part) => low + (high - low) * part;
  const side = (neuron) => between(SIDE, Math.sqrt(neuron.strength));

  function start(given) {
    overview = given;
    root = document.getElementById("graph");
    zoom = summit.zoomable(root, { least: 0.05, most: 6, changed: moved });
    // Pictures have the corners of their frame; the clip is in parts of the picture's own box.
    const corners = svg(
      "clipPath",
      { id: "corners", clipPathUnits: "objectBoundingBox" },
      svg("rect", { width: 1, height: 1, rx: 0.12 }),
    );
    root.append(svg("defs", {}, corners), rowsLayer, scene, rowNames);
    document.getElementById("zoom-in").addEventListener("click", () => zoom.by(1.3));
    document.getElementById("zoom-out").addEventListener("click", () => zoom.by(1 / 1.3));
    document.getElementById("zoom-fit").addEventListener("click", fit);
    for (const [id, sign] of [
      ["more-above", 1],
      ["more-below", -1],
    ]) {
      document
        .getElementById(id)
        .addEventListener("click", () => zoom.pan(0, sign * box.height * 0.8));
    }
    root.addEventListener("pointerover", (event) => point(under(event.target), event));
    root.addEventListener("pointermove", (event) => tip(event));
    root.addEventListener("pointerleave", () => point(null));
    // Not on the picture itself: Chromium takes an SVG that listens to the focus for a stop of Tab.
    root.parentElement.addEventListener("focusin", (event) => point(under(event.target)));
    root.parentElement.addEventListener("focusout", () => point(null));
    root.addEventListener("click", (event) => {
      const found = under(event.target);
      if (found && found.neuron)
        summit.walk(found.neuron.name === state.neuron ? null : found.neuron);
      else if (!found && state.neuron) summit.walk(null);
    });
    root.addEventListener("keydown", pressed);
    new ResizeObserver(resized).observe(root);
  }

  function under(element) {
    const node = element.closest("[data-neuron]");
    if (node) return { neuron: picture.byName.get(node.dataset.neuron) };
    const line = element.closest("[data-edge]");
    return line ? { edge: picture.edges[Number(line.dataset.edge)] } : null;
  }

  /* given: the picture (picture.js), or null where there is none to show. */
  function show(given, now) {
    state = now;
    const wanted = given ? `${now.class} ${now.with} ${now.width} ${now.height}` : "";
    const other = picture !== given;
    picture = given;
    if (wanted !== key || other) {
      key = wanted;
      if (other) {
        zoom.touched = false;
        pointed = null;
      }
      build();
    }
    if (!picture) return;
    filter();
    choose();
    focusOn(pointed);
    const chosen = picture.byName.get(now.neuron);
    if (chosen && (chosen !== seen || other)) intoSight(chosen);
    seen = chosen;
  }

  /* --- drawing --- */

  const layers = () => overview.layers.length;
  const gutter = () =>
    Math.min(104, 14 + 6.3 * Math.max(...overview.layers.map((layer) => rowName(layer).length)));
  const MARGIN = 46; // at the right, where the zoom buttons stand
  const rowName = (layer) => summit.ending(layer.name, 14);

  function build() {
    scene.replaceChildren();
    nodes = new Map();
    lines = new Map();
    if (!picture || !picture.neurons.length || !box.width) {
      rowsLayer.replaceChildren();
      rowNames.replaceChildren();
      return;
    }
    const frame = { width: box.width - gutter() - MARGIN, height: box.height - 24 };
    room = summit.room(picture, layers(), frame, SCALE, state, side);
    const edgesLayer = svg("g", { class: "edges" });
    const hits = svg("g", { class: "hits", "aria-hidden": "true" });
    const nodesLayer = svg("g", { class: "nodes" });
    const curves = summit.curves(picture, room.place, side);
    // The strongest are drawn last, above the others.
    for (let number = picture.edges.length - 1; number >= 0; number -= 1) {
      const edge = picture.edges[number];
      const d = curves.get(edge);
      const line = svg("path", {
        class: `edge of-${picture.compared ? edge.of : "one"}`,
        d,
        "data-edge": number,
        "data-source": edge.source.name,
        "data-target": edge.target.name,
        "stroke-width": between(WIDTH, edge.strength).toFixed(2),
        "stroke-opacity": between(OPACITY, edge.strength).toFixed(2),
      });
      const hit = svg("path", { class: "hit", d, "data-edge": number });
      lines.set(edge, { line, hit });
      edgesLayer.append(line);
      hits.append(hit);
    }
    for (const neuron of picture.neurons) {
      const node = drawn(neuron);
      nodes.set(neuron, node);
      nodesLayer.append(node);
    }
    scene.append(edgesLayer, hits, nodesLayer);
    drawRows();
    root.setAttribute("aria-label", `Attribution graph: ${picture.says}`);
    if (zoom.touched) moved(zoom.view);
    else begin();
  }

  function drawn(neuron) {
    const { x, y } = room.place(neuron);
    const size = side(neuron);
    const half = size / 2;
    const square = (grow, attributes) =>
      svg("rect", {
        x: -half - grow,
        y: -half - grow,
        width: size + 2 * grow,
        height: size + 2 * grow,
        rx: size * 0.12 + grow,
        ...attributes,
      });
    const picturedAt = neuron.records.find((record) => record && record.feature);
    const group = svg(
      "g",
      {
        class: `node of-${neuron.of}`,
        transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`,
        "data-neuron": neuron.name,
        "data-of": neuron.of,
        role: "button",
        tabindex: -1,
        "aria-label": spoken(neuron),
      },
      square(6, { class: "ring" }),
      neuron.of === "shared" ? square(4, { class: "double" }) : null,
      square(0, { class: "tile" }),
    );
    if (picturedAt) {
      const image = svg("image", {
        x: -half,
        y: -half,
        width: size,
        height: size,
        "clip-path": "url(#corners)",
        preserveAspectRatio: "xMidYMid slice",
      });
      group.append(image);
      pictureInto(image, neuron);
    }
    group.append(
      square(0, { class: "frame" }),
      picturedAt
        ? svg(
            "text",
            { class: "number beside", x: half + 4, y: room.raised(neuron) ? 10 - half : half },
            String(neuron.channel),
          )
        : svg(
            "text",
            { class: "number", y: size * 0.12, "font-size": Math.min(20, size * 0.36).toFixed(1) },
            String(neuron.channel),
          ),
    );
    return group;
  }

  /* The picture comes in a file of its own; without it the neuron stays a plain tile. */
  function pictureInto(image, neuron) {
    summit.feature(neuron).then(
      (uri) => image.setAttribute("href", uri),
      () => {
        const group = image.parentNode;
        const text = group && group.querySelector(".number");
        if (!text) return;
        text.classList.remove("beside");
        text.setAttribute("x", 0);
        text.setAttribute("y", side(neuron) * 0.12);
        text.setAttribute("font-size", Math.min(20, side(neuron) * 0.36).toFixed(1));
        image.remove();
      },
    );
  }

  function spoken(neuron) {
    const parts = neuron.records.flatMap((record, which) => {
      if (!record) return [];
      const index = picture.classes[which];
      return [
        `${summit.nameOf(index)}: rank ${record.rank}, active in ${summit.amount(overview, index, record.count)}`,
      ];
    });
    return `Neuron ${neuron.name}. ${parts.join(". ")}. ${neuron.sources.length} in, ${neuron.targets.length} out`;
  }

  function drawRows() {
    rowsLayer.replaceChildren();
    rowNames.replaceChildren();
    overview.layers.forEach((layer) => {
      rowsLayer.append(svg("line", { class: "row" }));
      const size = layer.height ? `, maps of ${layer.height} × ${layer.width}` : "";
      rowNames.append(
        svg(
          "text",
          { x: 8 },
          svg("title", {}, `${layer.name}: ${summit.plural(layer.channels, "channel")}${size}`),
          rowName(layer),
        ),
      );
    });
  }

  function moved({ x, y, k }) {
    scene.setAttribute(
      "transform",
      `translate(${x.toFixed(2)} ${y.toFixed(2)}) scale(${k.toFixed(4)})`,
    );
    if (!picture) return;
    root.classList.toggle("far", k < 0.75);
    let last = Infinity;
    let above = 0;
    let below = 0;
    room.rows.forEach((height, row) => {
      const top = y + k * height;
      const line = rowsLayer.children[row];
      const name = rowNames.children[row];
      if (!line) return;
      line.setAttribute("x2", box.width);
      line.setAttribute("y1", top);
      line.setAttribute("y2", top);
      name.setAttribute("y", top + 4);
      const overlaps = last - top < 13; // names that would overlap are left out
      name.toggleAttribute("hidden", overlaps);
      if (!overlaps) last = top;
      if (top < 0) above += 1;
      if (top > box.height) below += 1;
    });
    beyond("more-above", above, "above");
    beyond("more-below", below, "below");
  }

  /* Says that there are rows out of sight. */
  function beyond(id, rows, where) {
    const button = document.getElementById(id);
    button.hidden = !rows;
    button.textContent = `${where === "above" ? "↑" : "↓"} ${summit.plural(rows, "more layer")} ${where}`;
  }

  /* All of it into the frame. */
  function fit() {
    if (!picture || !picture.neurons.length || !box.width) return;
    place(Math.min(...scales(1, 1), SCALE.most));
  }

  /* As it is shown at first: large enough to make something out, its upper end in sight. Width and
     height asked for by the sliders go beyond the frame rather than shrink the neurons. */
  function begin() {
    const [across, down] = scales(state.width, state.height);
    place(Math.min(across, down < SCALE.whole ? SCALE.least : down, SCALE.most));
  }

  /* At which scale width and height fit the frame. */
  const scales = (width, height) => [
    ((box.width - gutter() - MARGIN) * width) / (room.slots * room.slot),
    ((box.height - 16) * height) / room.high,
  ];

  function place(k) {
    const left = gutter();
    const middle = ((room.slots - 1) * room.slot * k) / 2;
    const spare = box.height - room.high * k;
    zoom.touched = false;
    zoom.set({
      k,
      x: left + (box.width - left - MARGIN) / 2 - middle,
      y: Math.max(spare / 2, 6) + room.above * k,
    });
  }

  function resized() {
    const { width, height } = root.getBoundingClientRect();
    if (width === box.width && height === box.height) return;
    box = { width, height };
    if (!picture || !width || !height) return;
    build();
    filter();
    choose();
    focusOn(pointed);
  }

  /* --- what is shown of it --- */

  const strongEnough = (edge) => edge.strength >= state.least;

  function filter() {
    let shown = 0;
    for (const [edge, { line, hit }] of lines) {
      const hidden = !strongEnough(edge);
      if (!hidden) shown += 1;
      line.toggleAttribute("hidden", hidden);
      hit.toggleAttribute("hidden", hidden);
    }
    for (const [neuron, node] of nodes) {
      const joined = neuron.sources.some(strongEnough) || neuron.targets.some(strongEnough);
      node.classList.toggle("alone", !joined && state.least > 0);
    }
    return shown;
  }

  function choose() {
    const path = [...state.path, state.neuron];
    let tabbed = false;
    for (const [neuron, node] of nodes) {
      const chosen = neuron.name === state.neuron;
      node.classList.toggle("chosen", chosen);
      node.classList.toggle("walked", path.includes(neuron.name));
      node.setAttribute("aria-pressed", String(chosen));
      node.setAttribute("tabindex", chosen ? 0 : -1);
      tabbed = tabbed || chosen;
    }
    if (!tabbed && picture.neurons.length)
      nodes.get(picture.neurons[0])?.setAttribute("tabindex", 0);
    const steps = new Set(
      path.slice(1).flatMap((name, step) => [`${path[step]} ${name}`, `${name} ${path[step]}`]),
    );
    for (const [edge, { line }] of lines) {
      line.classList.toggle("walked", steps.has(`${edge.source.name} ${edge.target.name}`));
    }
  }

  /* All but the edges of what is pointed at fade; of what is chosen, when nothing is. */
  function focusOn(what) {
    const chosen = picture.byName.get(state.neuron);
    const now = what || (chosen ? { neuron: chosen } : null);
    root.classList.toggle("focusing", Boolean(now));
    const near = new Set();
    const edges = new Set();
    if (now && now.neuron) {
      near.add(now.neuron);
      for (const edge of [...now.neuron.sources, ...now.neuron.targets]) {
        if (!strongEnough(edge)) continue;
        edges.add(edge);
        near.add(edge.source).add(edge.target);
      }
    } else if (now) {
      edges.add(now.edge);
      near.add(now.edge.source).add(now.edge.target);
    }
    for (const [neuron, node] of nodes) node.classList.toggle("near", near.has(neuron));
    for (const [edge, { line }] of lines) line.classList.toggle("near", edges.has(edge));
  }

  function point(what, event) {
    const same = what && pointed && what.neuron === pointed.neuron && what.edge === pointed.edge;
    if (same || (!what && !pointed) || root.classList.contains("dragging")) return;
    pointed = what;
    if (picture) focusOn(what);
    summit.look(what);
    if (event) tip(event);
    else hideTip();
  }

  /* Marks a neuron that is named elsewhere, without a change of the details. */
  function mark(name) {
    for (const [neuron, node] of nodes) node.classList.toggle("marked", neuron.name === name);
  }

  /* --- the name beside the pointer --- */

  function tip(event) {
    const note = document.getElementById("tip");
    if (!pointed || event.pointerType === "touch" || root.classList.contains("dragging"))
      return hideTip();
    note.textContent = pointed.neuron ? tipOf(pointed.neuron) : summit.edgeWords(pointed.edge);
    note.hidden = false;
    const { offsetWidth, offsetHeight } = note;
    note.style.left = `${Math.min(event.clientX + 14, window.innerWidth - offsetWidth - 8)}px`;
    note.style.top = `${event.clientY + 18 + offsetHeight > window.innerHeight ? event.clientY - offsetHeight - 10 : event.clientY + 18}px`;
  }

  function tipOf(neuron) {
    const said = neuron.records.flatMap((record, which) => {
      if (!record) return [];
      const index = picture.classes[which];
      return [`${summit.amount(overview, index, record.count)} of ${summit.quoted(index)}`];
    });
    return `${neuron.name}: active in ${said.join(", ")}`;
  }

  function hideTip() {
    document.getElementById("tip").hidden = true;
  }

  /* --- keys --- */

  function pressed(event) {
    if (zoom.key(event)) return;
    if (event.key === "0") return fit();
    if (!picture || !(event.target instanceof Element)) return;
    const found = under(event.target);
    const neuron = found && found.neuron;
    if (event.key === "Escape" && state.neuron) {
      event.preventDefault();
      return summit.walk(null);
    }
    if (!neuron) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      return summit.walk(neuron.name === state.neuron ? null : neuron);
    }
    const next = beside(neuron, event.key);
    if (next === undefined) return;
    event.preventDefault();
    if (next) reach(next);
  }

  /* Up and down along the strongest edge, left and right in the row. */
  function beside(neuron, pressedKey) {
    const row = picture.neurons
      .filter((one) => one.row === neuron.row)
      .sort((one, other) => one.x - other.x);
    const here = row.indexOf(neuron);
    if (pressedKey === "ArrowLeft") return row[here - 1] || null;
    if (pressedKey === "ArrowRight") return row[here + 1] || null;
    if (pressedKey === "ArrowUp")
      return (neuron.targets.find(strongEnough) || {}).target || over(neuron, 1);
    if (pressedKey === "ArrowDown")
      return (neuron.sources.find(strongEnough) || {}).source || over(neuron, -1);
    if (pressedKey === "Home") return picture.neurons[0];
    return undefined;
  }

  /* Where no edge leads on: the nearest neuron of the next row that has any. */
  function over(neuron, step) {
    for (let row = neuron.row + step; row >= 0 && row < layers(); row += step) {
      const found = picture.neurons.filter((one) => one.row === row);
      found.sort((one, other) => Math.abs(one.x - neuron.x) - Math.abs(other.x - neuron.x));
      if (found.length) return found[0];
    }
    return null;
  }

  /* Puts the focus on a neuron, and the neuron into sight. */
  function reach(neuron) {
    const node = nodes.get(neuron);
    if (!node) return;
    for (const one of nodes.values()) one.setAttribute("tabindex", -1);
    node.setAttribute("tabindex", 0);
    intoSight(neuron);
    node.focus({ preventScroll: true });
  }

  function intoSight(neuron) {
    const { x, y, k } = zoom.view;
    const spot = room.place(neuron);
    const keep = 40;
    const [left, top] = [x + k * spot.x, y + k * spot.y];
    const across = Math.max(gutter() + keep - left, 0) || Math.min(box.width - keep - left, 0);
    const down = Math.max(keep - top, 0) || Math.min(box.height - keep - top, 0);
    if (across || down) zoom.pan(across, down);
  }

  summit.graph = {
    start,
    show,
    fit,
    mark,
    /* For save.js: the whole drawing, and its measures at zoom 1. */
    drawing: () => ({ scene, ...room, gutter: gutter(), rowName }),
    shownEdges: () => picture.edges.filter(strongEnough),
  };
})();
