"use strict";

/* Beside the graph, while no neuron is pointed at: the chosen class, and its neighbours layer by layer. */
(function () {
  const { el, percent, plural, number } = summit;
  const NEAREST = 4; // of each layer
  let overview;
  let pane;
  let how = true; // whether "how to read this" is open

  function start(given) {
    overview = given;
    pane = document.getElementById("class-pane");
    // A class named in several places is marked in all of them.
    const point = (event) => {
      const chip = event.target.closest("[data-goto]");
      pointAt(chip ? Number(chip.dataset.goto) : null);
    };
    pane.addEventListener("pointerover", point);
    pane.addEventListener("focusin", point);
    pane.addEventListener("pointerleave", () => pointAt(null));
    pane.addEventListener("focusout", () => pointAt(null));
  }

  function pointAt(index) {
    for (const chip of pane.querySelectorAll("[data-goto]"))
      chip.classList.toggle("same", Number(chip.dataset.goto) === index);
    summit.embedding.point(index);
  }

  /* data: the class's data, or null where they do not load. */
  function show(state, data) {
    const at = summit.place(state.class);
    const found = [howTo(state)];
    if (at !== undefined)
      found.push(
        facts(at),
        data ? confusions(state, data) : null,
        data ? neighbours(state, data) : null,
      );
    summit.refill(pane, ...found);
  }

  function howTo(state) {
    const tile = overview.hasFeatures
      ? "Its picture shows what excites it most."
      : "Its number is its channel.";
    const graph = [
      el(
        "p",
        {},
        "A square is a ",
        el("b", {}, "neuron"),
        `, one of the model's detectors. ${tile} Larger: active in more images of the class.`,
      ),
      el(
        "p",
        {},
        "Rows are ",
        el("b", {}, "layers"),
        ". The lowest see edges and colours in the image, higher ones textures, then parts and whole things.",
      ),
      el(
        "p",
        {},
        "A ",
        el("b", {}, "line"),
        ": the lower neuron drives the upper. Wider: in more images.",
      ),
      el(
        "p",
        {},
        !state.with.length
          ? "Point at a neuron to see what it reacts to; click it, then its neighbours, to follow a path."
          : `Green, with a double border: neurons that ${state.with.length > 1 ? "two classes or more" : "both classes"} use.`,
      ),
    ];
    const embedding = [
      el(
        "p",
        {},
        "A point is a ",
        el("b", {}, "class"),
        ". Classes whose images set off the same neurons of the layer stand close together; those most like the chosen one are blue.",
      ),
      el(
        "p",
        {},
        "Go through the layers with ‹ and ›: classes that the model begins to tell apart move away from each other.",
      ),
    ];
    const box = el(
      "details",
      { class: "how", id: "how", open: how },
      el("summary", {}, "How to read this"),
      ...(state.view === "embedding" ? embedding : graph),
    );
    box.addEventListener("toggle", () => {
      how = box.open;
    });
    return box;
  }

  function facts(at) {
    const { name, synset, top1, top5, probability, images } = overview.classes;
    const said = [];
    const held = (text) => el("span", { class: "held" }, text); // "top-1" stays on one line
    const label =
      overview.grouping === "prediction"
        ? ["of the images predicted so have this label"]
        : ["of its images are recognised ", held("(top-1)")];
    const five =
      top5[at] === null
        ? []
        : [`; for ${percent(top5[at])} it is among the first five `, held("(top-5)")];
    if (top1[at] !== null)
      said.push(el("p", {}, el("b", {}, percent(top1[at])), " ", ...label, ...five, "."));
    const bins = probability[at];
    return el(
      "section",
      { class: "facts-of" },
      el("h3", {}, name[at]),
      el(
        "p",
        { class: "quiet" },
        [
          synset[at],
          images[at] === null ? null : plural(images[at], "image"),
          ...summit.graphFacts(at),
        ]
          .filter(Boolean)
          .join(" · "),
      ),
      ...said,
      bins
        ? el(
            "figure",
            {},
            summit.histogram(bins, 240, 44),
            el(
              "div",
              { class: "axis" },
              el("span", {}, "0\u202f%"),
              el("span", {}, "probability of the true class"),
              el("span", {}, "100\u202f%"),
            ),
          )
        : null,
    );
  }

  const go = (index, text, attributes = {}) =>
    el(
      "button",
      {
        type: "button",
        class: "chip",
        "data-goto": index,
        onclick: () => summit.choose(index),
        ...attributes,
      },
      text,
    );

  function confusions(state, data) {
    if (!data.confusions || !data.confusions.length) return null;
    const images = overview.classes.images[summit.place(state.class)];
    const rows = data.confusions.slice(0, 8).map(([other, count]) =>
      el(
        "li",
        {},
        other < 0
          ? el("span", { class: "quiet" }, "another class")
          : go(other, summit.nameOf(other)),
        el(
          "span",
          { class: "quiet" },
          ` ${plural(count, "image")}${images ? `, ${percent(count / images)}` : ""}`,
        ),
        other < 0
          ? null
          : el(
              "button",
              {
                type: "button",
                class: "plain small",
                "data-compare": other,
                title: `Compare with “${summit.nameOf(other)}”`,
                "aria-label": `Compare with ${summit.nameOf(other)}`,
                "aria-pressed": String(state.with.includes(other)),
                disabled: summit.full(state) && !state.with.includes(other),
                onclick: () => summit.compare(other),
              },
              summit.icon("compare"),
            ),
      ),
    );
    return el(
      "section",
      { id: "confusions" },
      el("h3", {}, "Confused with"),
      el("ul", { class: "plain-list" }, ...rows),
    );
  }

  /* The nearest classes in each layer, last layer on top as in the graph; of a class it is compared
     with also how near it is, so that one sees in which layer the two part. */
  function neighbours(state, data) {
    const { similar } = data;
    if (!similar) {
      if (overview.classes.index.length < 2) return null;
      const why = overview.partial
        ? "Published graphs do not say which classes are alike."
        : "Not known yet: run summit-graph rank on the atlas, then write these pages again.";
      return el(
        "section",
        { id: "neighbours" },
        el("h3", {}, "Nearest classes"),
        el("p", { class: "quiet" }, why),
      );
    }
    const compared = state.with.length > 0;
    const rows = overview.layers
      .map((layer, place) => ({ layer: layer.name, near: similar.layers[place] || [] }))
      .reverse()
      .concat({ layer: null, near: similar.overall });
    const body = rows.map(({ layer, near }) =>
      el(
        "tr",
        { "data-layer": layer ?? "overall", class: layer === null ? "overall" : null },
        el(
          "th",
          { scope: "row", title: layer ?? "mean over the layers" },
          layer === null ? "overall" : summit.ending(layer, 13),
        ),
        compared
          ? el(
              "td",
              { class: "cosine" },
              ...state.with.map((other) => el("div", {}, ...likeness(state, near, other))),
            )
          : null,
        el(
          "td",
          {},
          ...near.slice(0, compared ? NEAREST - 1 : NEAREST).map(([other, cosine]) =>
            go(other, summit.nameOf(other), {
              title: `cosine ${cosine.toFixed(2)}`,
              class: `chip ${summit.kindOf(state, other) ?? ""}`,
            }),
          ),
          near.length ? "" : el("span", { class: "quiet" }, "no active neuron"),
        ),
      ),
    );
    return el(
      "section",
      { id: "neighbours" },
      el("h3", {}, "Nearest classes, layer by layer"),
      ...state.with.map((other) => el("p", { class: "parting" }, parting(state, similar, other))),
      el(
        "table",
        { class: compared ? "near compared" : "near" },
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            el("th", { scope: "col" }, "layer"),
            compared ? el("th", { scope: "col" }, "likeness") : null,
            el("th", { scope: "col", class: "wide" }, "nearest"),
          ),
        ),
        el("tbody", {}, ...body),
      ),
    );
  }

  const cosineOf = (near, other) => {
    const found = near.find(([index]) => index === other);
    return found ? found[1] : null;
  };

  function likeness(state, near, other) {
    const cosine = cosineOf(near, other);
    if (cosine === null)
      return [
        el(
          "span",
          { class: "quiet", title: `not among the ${number(near.length)} nearest` },
          "far",
        ),
      ];
    const bar = summit.svg(
      "svg",
      { class: "meter", width: 34, height: 8, "aria-hidden": "true" },
      summit.svg("rect", { class: "base", width: 34, height: 8, rx: 2 }),
      summit.svg("rect", {
        class: `value ${summit.kindOf(state, other)}`,
        width: (34 * Math.max(cosine, 0)).toFixed(1),
        height: 8,
        rx: 2,
      }),
    );
    return [bar, el("span", {}, cosine.toFixed(2))];
  }

  /* In which layer the chosen class and another part: where their likeness falls most from a layer to the next. */
  function parting(state, similar, index) {
    const [one, other] = [summit.quoted(state.class), summit.quoted(index)];
    const cosines = similar.layers.map((near) => cosineOf(near || [], index));
    let at = null;
    let most = 0.05;
    for (let place = 1; place < cosines.length; place += 1) {
      if (cosines[place - 1] === null) continue;
      const fall = cosines[place - 1] - (cosines[place] ?? 0);
      if (fall > most) [at, most] = [place, fall];
    }
    if (at === null) return `${one} and ${other} do not part clearly in any layer.`;
    const now = cosines[at] === null ? "not among its 50 nearest any more" : cosines[at].toFixed(2);
    return `${one} and ${other} part most in ${overview.layers[at].name}: their likeness falls from ${cosines[at - 1].toFixed(2)} (${overview.layers[at - 1].name}) to ${now}.`;
  }

  summit.classPane = { start, show };
  summit.chip = go;
})();
