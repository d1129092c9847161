"use strict";

/* Beside the graph: the neuron, or the edge, that is pointed at or chosen. */
(function () {
  const { el, percent, plural, number } = summit;
  const LISTED = 12; // neighbours and classes before "more"
  let overview;
  let pane;
  let shown = null; // name of the neuron

  function start(given) {
    overview = given;
    pane = document.getElementById("neuron-pane");
    // What a row names is marked in the graph, as if the pointer were there.
    const point = (event) => {
      const row = event.target.closest("[data-step]");
      summit.graph.mark(row ? row.dataset.step : null);
    };
    pane.addEventListener("pointerover", point);
    pane.addEventListener("focusin", point);
    pane.addEventListener("pointerleave", () => summit.graph.mark(null));
  }

  /* A feature visualisation, or a plain tile with the channel's number. */
  function portrait(neuron, size) {
    const holder = el("span", { class: `portrait of-${neuron.of} ${size}` });
    if (!hasFeature(neuron)) {
      holder.append(el("span", { class: "number" }, String(neuron.channel)));
      return holder;
    }
    const image = el("img", {
      alt: size === "large" ? `Feature visualisation of ${neuron.name}` : "",
      draggable: "false",
    });
    holder.append(image);
    summit.feature(neuron).then(
      (uri) => {
        image.src = uri;
      },
      () => image.replaceWith(el("span", { class: "number" }, String(neuron.channel))),
    );
    return holder;
  }

  const hasFeature = (neuron) => neuron.records.some((record) => record && record.feature);

  /* One tile of a strip of square pictures. */
  function tile(file, count, at, says) {
    const one = el("span", { class: "tile", role: "img", "aria-label": says, title: says });
    one.style.backgroundImage = `url("pictures/${file}")`;
    one.style.backgroundSize = `${count * 100}% 100%`;
    one.style.backgroundPosition = count > 1 ? `${(at / (count - 1)) * 100}% 0` : "0 0";
    return one;
  }

  /* kept: whether it is chosen, not only pointed at. */
  function showNeuron(state, neuron, kept) {
    const record = neuron.records.find(Boolean);
    summit.refill(
      pane,
      heading(neuron, state, kept),
      kept ? path(state) : null,
      pictures(neuron, record),
      examples(state, neuron, record),
      steps(state, "Drives", "upwards", neuron.targets, "target"),
      steps(state, "Driven by", "downwards", neuron.sources, "source"),
      classes(state, neuron, record),
    );
    if (shown !== neuron.name) pane.parentElement.scrollTop = 0;
    shown = neuron.name;
  }

  function heading(neuron, state, kept) {
    const layer = overview.layers[neuron.layer];
    const position = `layer ${neuron.layer + 1} of ${overview.layers.length}, channel ${neuron.channel} of ${number(layer.channels)}`;
    return el(
      "section",
      { class: "heading" },
      kept
        ? el(
            "button",
            {
              type: "button",
              class: "plain close",
              id: "neuron-close",
              title: "Back to the class (Esc)",
              "aria-label": "Back to the class",
              onclick: () => summit.walk(null),
            },
            summit.icon("close"),
          )
        : null,
      portrait(neuron, "large"),
      el(
        "div",
        {},
        el("h3", { id: "neuron-name" }, neuron.name),
        el("p", { class: "quiet" }, position),
        ...lines(neuron, state),
      ),
    );
  }

  /* What it is to the class, or to each of several. */
  function lines(neuron, state) {
    return neuron.records.flatMap((record, which) => {
      if (!record) return [];
      const index = [state.class, ...state.with][which];
      const share = summit.shareOf(overview, index, record.count);
      const images = overview.classes.images[summit.place(index)];
      const active =
        share === null
          ? `active in ${plural(record.count, "image")}`
          : `active in ${percent(share)} of the images (${number(record.count)} of ${number(images)})`;
      const votes = record.votes
        ? `; speaks for the class in ${plural(record.votes, "image")}`
        : "";
      return [
        el(
          "p",
          {},
          el("b", { class: `name-${summit.kindOf(state, index)}` }, summit.nameOf(index)),
          `: rank ${record.rank}, ${active}${votes}.`,
        ),
      ];
    });
  }

  /* The neurons walked through, each a step back. */
  function path(state) {
    if (!state.path.length) return null;
    const names = [...state.path, state.neuron];
    const found = names.flatMap((name, at) => [
      at ? el("span", { "aria-hidden": "true" }, " › ") : null,
      at < names.length - 1
        ? el(
            "button",
            { type: "button", class: "chip", "data-step": name, onclick: () => summit.back(at) },
            name,
          )
        : el("b", {}, name),
    ]);
    return el(
      "nav",
      { class: "path", id: "path", "aria-label": "Path walked" },
      "Path: ",
      ...found.filter(Boolean),
    );
  }

  function pictures(neuron, record) {
    if (!hasFeature(neuron)) {
      const says = overview.hasFeatures
        ? "No feature visualisation of this neuron."
        : overview.partial
          ? "No feature visualisations: the model's weights are not part of the published graphs."
          : "No feature visualisations yet. Run summit-graph features on the atlas, then write these pages again.";
      return el("section", {}, el("p", { class: "quiet" }, says));
    }
    if (!record.diverse) return null;
    const file = `${neuron.layer}-${neuron.channel}-diverse.webp`;
    const tiles = Array.from({ length: record.diverse }, (_, at) =>
      tile(file, record.diverse, at, `Diverse feature visualisation ${at + 1}`),
    );
    return el(
      "section",
      { id: "diverse" },
      el("h4", {}, "Other images that excite it"),
      el("div", { class: "tiles diverse" }, ...tiles),
    );
  }

  function examples(state, neuron, record) {
    if (!state.examples) return null;
    if (!record.examples.length) {
      if (overview.hasExamples) return null;
      const says = overview.partial
        ? "No dataset examples: published graphs come without images."
        : "These pages were written without dataset examples.";
      return el("section", {}, el("p", { class: "quiet" }, says));
    }
    if (record.patches === false) {
      const paths = record.examples.map((example) =>
        el("li", { class: "quiet", title: example.path }, summit.ending(example.path, 44)),
      );
      return el(
        "section",
        { id: "examples-of" },
        el("h4", {}, "Dataset examples (without pictures)"),
        el("ul", { class: "plain-list paths" }, ...paths),
      );
    }
    const file = `${neuron.layer}-${neuron.channel}-examples.webp`;
    const tiles = record.examples.map((example, at) =>
      tile(
        file,
        record.examples.length,
        at,
        `${example.path} (activation ${example.activation.toPrecision(3)})`,
      ),
    );
    return el(
      "section",
      { id: "examples-of" },
      el(
        "h4",
        { title: "The images of the data set that excite it most, cropped to what it sees" },
        "Dataset examples",
      ),
      el("div", { class: "tiles" }, ...tiles),
    );
  }

  /* The neurons at the other end of its edges: a click walks there. */
  function steps(state, title, where, edges, end) {
    const listed = edges.filter((edge) => edge.strength >= state.least);
    if (!listed.length) return null;
    const long = listed.some((edge) => edge[end].name.length > 9);
    const rows = listed.map((edge, at) => {
      const other = edge[end];
      return el(
        "li",
        { hidden: at >= LISTED },
        el(
          "button",
          {
            type: "button",
            class: "step",
            "data-step": other.name,
            title: summit.edgeWords(edge),
            onclick: () => summit.walk(other),
          },
          portrait(other, "small"),
          el("span", { class: "name" }, summit.ending(other.name, 26)),
          el("span", { class: "quiet" }, edgeAmount(state, edge)),
        ),
      );
    });
    return el(
      "section",
      { "data-direction": where },
      el("h4", {}, `${title} ${plural(listed.length, "neuron")}`),
      more(el("ul", { class: long ? "plain-list steps long" : "plain-list steps" }, ...rows), rows),
    );
  }

  function edgeAmount(state, edge) {
    return edge.counts
      .flatMap((count, which) => {
        if (count === null) return [];
        const index = [state.class, ...state.with][which];
        const share = summit.shareOf(overview, index, count);
        return [share === null ? number(count) : percent(share)];
      })
      .join(" / ");
  }

  /* All classes whose graphs have the neuron: a click goes there. */
  function classes(state, neuron, record) {
    const rows = record.classes.map(([index, rank, count], at) =>
      el(
        "li",
        { hidden: at >= LISTED },
        summit.chip(index, summit.nameOf(index), {
          class: `chip ${summit.kindOf(state, index) ?? ""}`,
          "aria-current": index === state.class ? "true" : null,
        }),
        el("span", { class: "quiet" }, ` rank ${rank}, ${summit.amount(overview, index, count)}`),
      ),
    );
    const rest = record.classesTotal - record.classes.length;
    return el(
      "section",
      { id: "neuron-classes" },
      el("h4", {}, `Matters to ${plural(record.classesTotal, "class", "classes")}`),
      more(el("ul", { class: "plain-list" }, ...rows), rows),
      rest > 0 ? el("p", { class: "quiet" }, `and ${number(rest)} more`) : null,
    );
  }

  function more(list, rows) {
    const hidden = rows.filter((row) => row.hidden);
    if (!hidden.length) return list;
    const button = el(
      "button",
      { type: "button", class: "plain more" },
      `${number(hidden.length)} more`,
    );
    button.addEventListener("click", () => {
      for (const row of hidden) row.hidden = false;
      button.remove();
    });
    const box = el("div", {}, list, button);
    return box;
  }

  /* Both ends of an edge, as they stand: the upper neuron on top. */
  function showEdge(state, edge) {
    const end = (neuron) =>
      el(
        "div",
        { class: "end" },
        portrait(neuron, "large"),
        el("div", {}, el("h3", {}, neuron.name), ...lines(neuron, state)),
      );
    shown = null;
    summit.refill(
      pane,
      el(
        "section",
        { class: "edge-ends", id: "edge-ends" },
        end(edge.target),
        el(
          "p",
          { class: "arrow" },
          el("span", { "aria-hidden": "true" }, "↑ "),
          summit.edgeWords(edge),
        ),
        end(edge.source),
      ),
    );
  }

  /* What an edge says. */
  summit.edgeWords = function (edge) {
    const said = edge.counts.flatMap((count, which) => {
      if (count === null) return [];
      const index = summit.shown.classes[which];
      return [`${summit.amount(overview, index, count)} of ${summit.quoted(index)}`];
    });
    return `${edge.source.name} drives ${edge.target.name} in ${said.join(" and ")}`;
  };

  summit.neuronPane = { start, showNeuron, showEdge };
})();
