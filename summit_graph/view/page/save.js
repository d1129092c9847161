"use strict";

/*
 * Saves the picture as SVG or PNG: all of it at its own size, on white, with title, names of the
 * layers and legend, and with the feature visualisations inside the file (as PNG, which every
 * program reads). Nothing is asked of a server; colours are written out, for the page's style sheet
 * does not come along.
 */
(function () {
  const { svg } = summit;
  const COLOURS = {
    first: "#0072B2",
    second: "#D55E00",
    third: "#9440ED",
    fourth: "#CC79A7",
    shared: "#009E73",
    one: "#5B7B94",
    chosen: "#E69F00",
  };
  const TEXT = "#1d2730";
  const QUIET = "#56646f";
  const FONT = "system-ui, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif";
  const MARGIN = 24;
  const HEAD = 92;
  const FOOT = 44;
  const LARGEST = 8000; // pixels of a PNG's side

  summit.saveSvg = async function (overview, state, picture) {
    const text = new XMLSerializer().serializeToString(await drawn(overview, state, picture));
    offer(new Blob([text], { type: "image/svg+xml" }), `${fileName(state)}.svg`);
  };

  summit.savePng = async function (overview, state, picture) {
    const root = await drawn(overview, state, picture);
    const [width, height] = ["width", "height"].map((name) => Number(root.getAttribute(name)));
    const scale = Math.min(2, LARGEST / width, LARGEST / height);
    // A data URI, not a blob: under file:// a blob has another origin, and the canvas could not be read.
    const source = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(new XMLSerializer().serializeToString(root))}`;
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.getContext("2d").drawImage(await loaded(source), 0, 0, canvas.width, canvas.height);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    offer(blob, `${fileName(state)}.png`);
  };

  function fileName(state) {
    const names = [state.class, ...state.with].map(summit.nameOf);
    const parts = names.map((text) =>
      text
        .normalize("NFKD")
        .replace(/[^\p{Letter}\p{Number}]+/gu, "-")
        .replace(/^-|-$/g, ""),
    );
    return parts.filter(Boolean).join("-and-").slice(0, 80) || "attribution-graph";
  }

  function offer(blob, name) {
    const link = summit.el("a", { href: URL.createObjectURL(blob), download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  function loaded(source) {
    return new Promise((resolve, reject) => {
      const image = new Image();
      image.addEventListener("load", () => resolve(image));
      image.addEventListener("error", () => reject(new Error("The picture could not be drawn.")));
      image.src = source;
    });
  }

  async function asPng(uri, side) {
    const image = await loaded(uri);
    const canvas = document.createElement("canvas");
    // Twice the size it is shown at, but not beyond its own.
    canvas.width = canvas.height = Math.min(Math.ceil(side * 2), image.naturalWidth);
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    return canvas.toDataURL("image/png");
  }

  async function drawn(overview, state, picture) {
    const pictured = picture.neurons.filter((neuron) =>
      neuron.records.some((record) => record && record.feature),
    );
    await Promise.allSettled(pictured.map(summit.feature)); // one that is missing stays a plain tile
    const { scene, slots, slot, rows, high, above, gutter, rowName } = summit.graph.drawing();
    const about = `${overview.model.name}${overview.dataset ? `, ${overview.dataset}` : ""}`;
    const inner = Math.max(
      slots * slot,
      460 - gutter,
      6.4 * Math.max(picture.says.length, about.length) - gutter,
    );
    const width = Math.ceil(gutter + inner + 2 * MARGIN);
    const height = Math.ceil(HEAD + high + FOOT);
    const left = MARGIN + gutter + slot / 2 + (inner - slots * slot) / 2;
    const top = HEAD + above;
    const root = svg("svg", {
      xmlns: "http://www.w3.org/2000/svg",
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      "font-family": FONT,
      "font-size": 12,
      fill: TEXT,
    });
    const words = (x, y, text, attributes = {}) => svg("text", { x, y, ...attributes }, text);
    root.append(
      svg("title", {}, picture.says),
      svg("rect", { width, height, fill: "#ffffff" }),
      words(MARGIN, 34, title(state), { "font-size": 20, "font-weight": 600 }),
      words(MARGIN, 54, picture.says, { fill: TEXT }),
      words(MARGIN, 71, about, { fill: QUIET }),
      svg(
        "defs",
        {},
        svg(
          "clipPath",
          { id: "corners", clipPathUnits: "objectBoundingBox" },
          svg("rect", { width: 1, height: 1, rx: 0.12 }),
        ),
      ),
    );
    overview.layers.forEach((layer, at) => {
      const y = top + rows[at];
      root.append(
        svg("line", { x1: MARGIN, x2: width - MARGIN, y1: y, y2: y, stroke: "#e3e8ec" }),
        words(MARGIN, y - 5, rowName(layer), { fill: QUIET }),
      );
    });
    const copy = scene.cloneNode(true);
    copy.setAttribute("transform", `translate(${left} ${top})`);
    plain(copy);
    await Promise.all(
      [...copy.querySelectorAll("image")].map(async (image) => {
        const uri = image.getAttribute("href");
        if (uri) image.setAttribute("href", await asPng(uri, Number(image.getAttribute("width"))));
        else image.remove();
      }),
    );
    root.append(copy, ...legend(state, picture, height - 18, words));
    return root;
  }

  const name = (index) => summit.brief(summit.nameOf(index));
  const title = (state) => summit.listed([state.class, ...state.with].map(name));

  /* Writes out what the style sheet says, and takes away what serves the page only. */
  function plain(copy) {
    for (const one of copy.querySelectorAll(".hits, [hidden]")) one.remove();
    for (const edge of copy.querySelectorAll(".edge")) {
      const kind = [...edge.classList].find((one) => one.startsWith("of-")).slice(3);
      edge.setAttribute("fill", "none");
      edge.setAttribute(
        "stroke",
        edge.classList.contains("walked") ? COLOURS.chosen : COLOURS[kind],
      );
      if (edge.classList.contains("walked")) edge.setAttribute("stroke-opacity", 1);
    }
    for (const node of copy.querySelectorAll(".node")) {
      const colour = COLOURS[node.dataset.of];
      const chosen = node.classList.contains("chosen");
      for (const part of node.children) {
        const kind = part.getAttribute("class");
        if (kind === "ring" && !chosen) part.setAttribute("display", "none");
        if (kind === "ring") paint(part, "none", COLOURS.chosen, 4);
        if (kind === "tile") paint(part, "#f2f6f9", "none", 0);
        if (kind === "double") paint(part, "none", colour, 1.5);
        if (kind === "frame") paint(part, "none", colour, 2);
        if (kind && kind.startsWith("number")) {
          const beside = kind.includes("beside");
          part.setAttribute("text-anchor", beside ? "start" : "middle");
          part.setAttribute("fill", TEXT);
          if (beside) part.setAttribute("font-size", 11);
        }
      }
      for (const one of ["tabindex", "role", "aria-label", "aria-pressed"])
        node.removeAttribute(one);
    }
    for (const one of copy.querySelectorAll("[class]")) one.removeAttribute("class");
  }

  function paint(element, fill, stroke, width) {
    element.setAttribute("fill", fill);
    element.setAttribute("stroke", stroke);
    element.setAttribute("stroke-width", width);
  }

  function legend(state, picture, y, words) {
    const found = [];
    let x = MARGIN;
    const entry = (draw, text) => {
      found.push(...draw(x, y - 4), words(x + 24, y, text, { fill: QUIET, "font-size": 11 }));
      x += 24 + text.length * 5.9 + 18;
    };
    const square = (colour, double) => (at, middle) => [
      svg("rect", {
        x: at + 2,
        y: middle - 7,
        width: 14,
        height: 14,
        rx: 2,
        fill: "#f2f6f9",
        stroke: colour,
        "stroke-width": 2,
      }),
      ...(double
        ? [
            svg("rect", {
              x: at - 1,
              y: middle - 10,
              width: 20,
              height: 20,
              rx: 4,
              fill: "none",
              stroke: colour,
              "stroke-width": 1.5,
            }),
          ]
        : []),
    ];
    const line = (at, middle) => [
      svg("line", {
        x1: at,
        x2: at + 18,
        y1: middle,
        y2: middle,
        stroke: COLOURS.one,
        "stroke-width": 4,
      }),
    ];
    if (picture.compared) {
      for (const index of picture.classes)
        entry(square(COLOURS[summit.kindOf(state, index)]), `only ${name(index)}`);
      entry(square(COLOURS.shared, true), summit.sharedWord(picture));
    } else entry(square(COLOURS.first), "neuron: larger, active in more images");
    entry(line, "influence: wider, in more images");
    if (state.least > 0)
      found.push(
        words(x, y, `influences below ${summit.percent(state.least)} of the strongest are hidden`, {
          fill: QUIET,
          "font-size": 11,
        }),
      );
    return found;
  }
})();
