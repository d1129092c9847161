"use strict";

/*
 * Joins the views: one state (state.js) is shown by all of them; whatever a person does changes the
 * state through `update`, and the address with it.
 *
 * For tests and for who is curious, `window.summit` offers:
 *
 *   summit.state              what is shown now, as in the address; read only
 *   summit.shown              {classes, picture}: what the graph shows; picture as in picture.js
 *   summit.update(changes)    changes the state, for instance summit.update({ class: 3, with: [7], least: 0.2 })
 *   summit.settled()          a promise that the views show the state and their pictures are there
 *   summit.layout(rows, edges)  the layout by itself, as in summit_graph/view/layout.py
 */
(function () {
  const { el, percent, plural, number } = summit;
  const overview = summit.have("overview");
  const MOST_COMPARED = 3; // classes beside the chosen one: with it, as many as there are colours
  const byId = (id) => document.getElementById(id);
  const places = new Map(); // class index -> place in overview.classes
  let latest = 0; // number of the latest draw; an earlier one that comes late is dropped
  let busy = Promise.resolve();
  let tableOf = null;
  let writing = null; // timer of an address still to be written
  let written = 0;

  summit.shown = { classes: [], data: [], picture: null };
  summit.place = (index) => places.get(index);
  summit.quoted = (index) => `“${summit.brief(summit.nameOf(index))}”`;
  summit.nameOf = (index) => overview.classes.name[places.get(index)] ?? `class ${index}`;
  summit.say = (text) => {
    byId("live").textContent = text;
  };
  summit.layerPlace = (name) => {
    const at = overview.layers.findIndex((layer) => layer.name === name);
    return at < 0 ? overview.layers.length - 1 : at;
  };
  summit.feature = (neuron) => summit.load(`feature-${neuron.layer}-${neuron.channel}`);
  summit.settled = () => busy;

  /* "9 neurons", "21 edges" of a class's graph. */
  summit.graphFacts = (at) => {
    const { neurons, edges } = overview.classes;
    return neurons[at] ? [plural(neurons[at], "neuron"), plural(edges[at], "edge")] : ["no graph"];
  };

  /* What a row of the list says besides accuracies. */
  summit.facts = (at) => {
    const images = overview.classes.images[at];
    return images === null
      ? summit.graphFacts(at)
      : [plural(images, "image"), summit.graphFacts(at)[0]];
  };

  /* --- what a person does --- */

  /* lasting: a step that the browser's back button undoes, not only a change of the address. */
  summit.update = function (changes, lasting = false) {
    summit.state = { ...summit.state, ...changes };
    write(lasting);
    return draw();
  };

  /* At most a few times a second: a browser stops listening to who writes the address all the time,
     as a slider that is drawn would. */
  function write(lasting) {
    clearTimeout(writing);
    const wait = lasting ? 0 : written + 150 - performance.now();
    if (wait > 0) {
      writing = setTimeout(write, wait);
      return;
    }
    written = performance.now();
    const address = summit.writeState(summit.state);
    if (lasting) history.pushState(null, "", address);
    else history.replaceState(null, "", address);
  }

  summit.choose = function (index) {
    const changes = { class: index, with: summit.state.with.filter((other) => other !== index) };
    // On a phone the list is a tab of its own: whoever chose wants to see what was chosen.
    if (narrow.matches && summit.state.view === "classes") changes.view = "graph";
    return summit.update({ ...changes, path: [] }, true);
  };

  /* Whether no more classes can be compared. */
  summit.full = (state) => state.with.length >= MOST_COMPARED;

  /* Puts a class beside the chosen one, or takes it away. */
  summit.compare = function (index) {
    const { state } = summit;
    if (state.with.includes(index))
      return summit.update({ with: state.with.filter((other) => other !== index) }, true);
    if (index === state.class || summit.full(state)) return busy;
    return summit.update({ with: [...state.with, index] }, true);
  };

  /* Chooses a neuron; from a neuron that it has an edge to this is a step of a path. */
  summit.walk = function (neuron) {
    const { neuron: from, path } = summit.state;
    if (!neuron) return summit.update({ neuron: null, path: [] }, true);
    if (neuron.name === from) return busy;
    const met = path.indexOf(neuron.name);
    if (met >= 0) return summit.back(met);
    const before = summit.shown.picture && summit.shown.picture.byName.get(from);
    const joined =
      before &&
      [...before.sources, ...before.targets].some(
        (edge) => edge.source === neuron || edge.target === neuron,
      );
    summit.say(
      `${neuron.name} chosen: ${plural(neuron.sources.length, "edge")} in, ${number(neuron.targets.length)} out`,
    );
    return summit.update({ neuron: neuron.name, path: joined ? [...path, from] : [] }, true);
  };

  /* Back along the path to a neuron of it, by its place. */
  summit.back = (at) =>
    summit.update({ neuron: summit.state.path[at], path: summit.state.path.slice(0, at) }, true);

  /* The pointer or the focus is on a neuron or edge of the graph, or on none. */
  summit.look = function (what) {
    const { state } = summit;
    const { picture } = summit.shown;
    const chosen = picture && picture.byName.get(state.neuron);
    const neuron = what && what.neuron ? what.neuron : what ? null : chosen;
    if (what && what.edge) summit.neuronPane.showEdge(state, what.edge);
    else if (neuron) summit.neuronPane.showNeuron(state, neuron, neuron === chosen);
    const any = Boolean(neuron || (what && what.edge));
    byId("neuron-pane").hidden = !any;
    byId("class-pane").hidden = any;
  };

  /* --- what is shown --- */

  function draw() {
    busy = drawn();
    return busy;
  }

  async function drawn() {
    latest += 1;
    const mine = latest;
    const { state } = summit;
    settle(state);
    summit.sidebar.show(state);
    const classes = [state.class, ...state.with];
    let data = classes.map(() => null);
    let failure = null;
    const wanted = classes.map((index) =>
      hasGraph(index) ? summit.load(`class-${index}`) : null,
    );
    try {
      data = await Promise.all(wanted);
    } catch (error) {
      failure = error;
    }
    if (mine !== latest) return;
    const [first] = data;
    const { shown } = summit;
    if (!same(shown.classes, classes) || !same(shown.data, data)) {
      const picture = first ? summit.picture(overview, classes, data) : null;
      if (picture) picture.says = inWords(picture, data);
      summit.shown = { classes, data, picture };
      if (shown.classes.length) summit.say(picture ? picture.says : "No attribution graph.");
    }
    const { picture } = summit.shown;
    empty(state, failure, picture);
    headline(state, picture);
    summit.graph.show(picture, state);
    summit.classPane.show(state, first);
    summit.look(null);
    summit.sidebar.show(state); // by likeness, the order is known only now
    summit.embedding.show(state);
    legend(state, picture);
    table(state, picture);
    if (picture)
      await Promise.allSettled(
        picture.neurons
          .filter((neuron) => neuron.records.some((record) => record && record.feature))
          .map(summit.feature),
      );
  }

  const same = (one, other) =>
    one.length === other.length && one.every((value, at) => value === other[at]);

  const hasGraph = (index) =>
    index !== null && Boolean(overview.classes.neurons[places.get(index)]);

  /* Controls that only repeat the state. */
  function settle(state) {
    document.body.dataset.view = state.view;
    document.documentElement.dataset.theme = state.theme ?? "";
    document.body.classList.toggle("no-examples", !state.examples);
    for (const button of document.querySelectorAll("#tabs button")) {
      if (button.dataset.view === state.view) button.setAttribute("aria-current", "page");
      else button.removeAttribute("aria-current");
    }
    byId("examples").checked = state.examples;
    byId("least").value = state.least;
    byId("width").value = state.width;
    byId("height").value = state.height;
    byId("table").open = state.table;
    const choice = byId("with");
    const full = summit.full(state);
    choice.options[0].textContent = full ? "four at most" : "choose…";
    choice.disabled = full;
    choice.title = full
      ? "Four classes fit in one picture: take one away first"
      : "Put a class beside the chosen one";
    choice.value = "";
    compared(state);
  }

  /* The classes beside the chosen one: a click takes one away. */
  function compared(state) {
    const box = byId("compared");
    const inside = box.contains(document.activeElement);
    box.replaceChildren(
      ...state.with.map((index) =>
        el(
          "button",
          {
            type: "button",
            class: `chip ${summit.kindOf(state, index)}`,
            "data-away": index,
            title: `Take “${summit.nameOf(index)}” away`,
            "aria-label": `Take ${summit.nameOf(index)} away`,
            onclick: () => summit.compare(index),
          },
          el("span", { class: "name" }, summit.nameOf(index)),
          summit.icon("close"),
        ),
      ),
    );
    if (inside) (box.querySelector("button") ?? byId("with")).focus({ preventScroll: true });
  }

  const neuronsOfModel = () => overview.layers.reduce((sum, layer) => sum + layer.channels, 0);

  /* The picture in one sentence, for the headline's, the saved file's and the screen reader's sake. */
  function inWords(picture, data) {
    const { neurons, classes } = picture;
    if (!picture.compared)
      return `the ${plural(neurons.length, "neuron")} that matter most for ${summit.quoted(classes[0])}, and ${plural(picture.edges.length, "influence")} between them`;
    const places = data.flatMap((one, at) => (one ? [at] : []));
    const had = (neuron) => neuron.records.filter(Boolean).length;
    const all = neurons.filter((neuron) => had(neuron) === places.length).length;
    const some = neurons.filter((neuron) => had(neuron) > 1).length - all;
    const alone = places.map((at, nth) => {
      const own = neurons.filter((neuron) => neuron.records[at] && had(neuron) === 1).length;
      return `${number(own)} ${nth ? "" : "are "}of ${summit.quoted(classes[at])} alone`;
    });
    const names = summit.listed(places.map((at) => summit.quoted(classes[at])));
    const part = places.length > 2 ? `, some of them ${number(some)} more` : "";
    return `${names} share ${plural(all, "neuron")}${part}; ${alone.join(", ")}`;
  }

  /* What a legend calls neurons of several classes. */
  summit.sharedWord = (picture) => (picture.classes.length > 2 ? "more than one" : "both");

  function headline(state, picture) {
    const title = byId("class-title");
    const sentence = byId("sentence");
    const name = (index, kind) =>
      el("span", { class: kind }, index === null ? "" : summit.nameOf(index));
    title.replaceChildren(name(state.class, state.with.length ? "name-first" : null));
    state.with.forEach((index, at) =>
      title.append(
        el("span", { class: "quiet" }, at === state.with.length - 1 ? " and " : ", "),
        name(index, `name-${summit.kindOf(state, index)}`),
      ),
    );
    document.title = `${title.textContent} · ${overview.model.name} · summit-graph`;
    const inside = sentence.contains(document.activeElement);
    sentence.replaceChildren();
    if (inside) byId("main").focus({ preventScroll: true });
    if (!picture || !picture.neurons.length) return;
    if (picture.compared) {
      sentence.append(`${picture.says}.`);
      return;
    }
    // The most active, not the first by rank: who ranks high may be active in no image itself.
    const top = picture.neurons.reduce((best, neuron) =>
      neuron.strength > best.strength ? neuron : best,
    );
    const [record] = top.records;
    const share = summit.shareOf(overview, state.class, record.count);
    const edge = picture.edges[0];
    const link = (neuron) =>
      el(
        "button",
        {
          type: "button",
          class: "link",
          "data-step": neuron.name,
          onclick: () => summit.walk(neuron),
        },
        neuron.name,
      );
    const held = (...parts) => el("span", { class: "held" }, ...parts); // no line ends before the comma
    sentence.append(
      `Of the model's ${number(neuronsOfModel())} neurons, these ${number(picture.neurons.length)} matter most for ${summit.quoted(state.class)}. Most active: `,
      share === null ? link(top) : held(link(top), ","),
      share === null
        ? ` (${plural(record.count, "image")})`
        : ` in ${percent(share)} of its images`,
    );
    if (edge) {
      const strong = summit.shareOf(overview, state.class, edge.counts[0]);
      sentence.append(
        "; strongest influence: ",
        link(edge.source),
        " on ",
        link(edge.target),
        strong === null ? ` (${number(edge.counts[0])})` : ` (${percent(strong)})`,
      );
    }
    sentence.append(".");
  }

  /* Where there is nothing to draw: why, and what to do. */
  function empty(state, failure, picture) {
    const box = byId("graph-empty");
    const name = summit.quoted(state.class);
    box.hidden = Boolean(picture && picture.neurons.length && !failure);
    byId("main").classList.toggle("nothing", !box.hidden);
    if (box.hidden) return;
    if (failure) {
      box.replaceChildren(
        el("p", {}, failure.message),
        el("button", { type: "button", id: "retry", onclick: () => draw() }, "Try again"),
      );
    } else if (!overview.classes.index.length) {
      box.replaceChildren(
        el(
          "p",
          {},
          "The atlas has no classes. Count images with summit-graph ingest, then write these pages again.",
        ),
      );
    } else if (places.get(state.class) === undefined) {
      box.replaceChildren(
        el("p", {}, `No class has the index ${state.class}. Choose one from the list.`),
      );
    } else if (overview.classes.images[places.get(state.class)] === 0) {
      box.replaceChildren(
        el(
          "p",
          {},
          `${name} has no attribution graph: no image of it was counted. Add images of it with summit-graph ingest, then write these pages again.`,
        ),
      );
    } else {
      box.replaceChildren(
        el(
          "p",
          {},
          `${name} has no attribution graph. Run summit-graph rank on the atlas, then write these pages again.`,
        ),
      );
    }
  }

  function legend(state, picture) {
    const box = byId("legend");
    box.hidden = !picture || !picture.neurons.length;
    if (box.hidden) return;
    const entry = (kind, text) =>
      el(
        "span",
        { class: "entry" },
        el("span", { class: `glyph ${kind}`, "aria-hidden": "true" }),
        text,
      );
    const shown = picture.edges.filter((edge) => edge.strength >= state.least).length;
    byId("least-value").textContent =
      state.least > 0
        ? `${number(shown)} of ${number(picture.edges.length)}`
        : `all ${number(shown)}`;
    const kinds = picture.compared
      ? [
          ...picture.classes.map((index) =>
            entry(summit.kindOf(state, index), summit.brief(summit.nameOf(index), 24)),
          ),
          entry("shared", summit.sharedWord(picture)),
        ]
      : [];
    const scale = el(
      "span",
      { class: "entry" },
      el("span", { class: "glyph sizes", "aria-hidden": "true" }),
      el("span", { class: "glyph line", "aria-hidden": "true" }),
      "larger, wider: in more images",
    );
    box.replaceChildren(
      ...kinds,
      scale,
      ...(picture.byName.has(state.neuron) ? [entry("ring", "chosen")] : []),
    );
  }

  function table(state, picture) {
    const wanted = state.table ? [picture, state.least, state.examples] : null;
    const same = wanted && tableOf && wanted.every((value, at) => value === tableOf[at]);
    if (state.table && !same) summit.table(overview, state, picture);
    tableOf = wanted;
  }

  /* --- the start --- */

  const narrow = window.matchMedia("(max-width: 959px)");

  function about() {
    byId("title").textContent = overview.model.name;
    const counted =
      overview.images === null
        ? `${plural(overview.classes.index.length, "class", "classes")}`
        : `${plural(overview.images, "image")} in ${plural(overview.classes.index.length, "class", "classes")}`;
    const parts = [
      overview.dataset ? `${overview.dataset}: ${counted}` : counted,
      `${number(neuronsOfModel())} neurons in ${plural(overview.layers.length, "layer")}`,
    ];
    if (overview.top1 !== null) parts.push(`top-1 ${percent(overview.top1)}`);
    if (overview.grouping === "prediction") parts.push("images grouped by what the model predicts");
    if (overview.partial) parts.push(overview.partial);
    byId("about").textContent = parts.join(" · ");
    byId("about").title = parts.join(" · ");
  }

  function controls() {
    for (const [id, icon] of Object.entries({
      "layer-before": "before",
      "layer-after": "after",
      "embedding-in": "plus",
      "embedding-out": "minus",
      "embedding-fit": "fit",
      "embedding-large": "large",
      "zoom-in": "plus",
      "zoom-out": "minus",
      "zoom-fit": "fit",
      theme: "theme",
    })) {
      byId(id).append(summit.icon(icon));
    }
    for (const button of document.querySelectorAll("#tabs button")) {
      button.addEventListener("click", () => summit.update({ view: button.dataset.view }));
    }
    for (const id of ["least", "width", "height"]) {
      byId(id).addEventListener("input", () => summit.update({ [id]: Number(byId(id).value) }));
      byId(id).addEventListener("dblclick", () => summit.update({ [id]: id === "least" ? 0 : 1 }));
    }
    byId("least").addEventListener("change", () =>
      summit.say(`Influences shown: ${byId("least-value").textContent}`),
    );
    byId("examples-label").hidden = !overview.hasExamples;
    byId("examples").addEventListener("change", () =>
      summit.update({ examples: byId("examples").checked }),
    );
    byId("theme").addEventListener("click", () => {
      const dark = summit.state.theme
        ? summit.state.theme === "dark"
        : window.matchMedia("(prefers-color-scheme: dark)").matches;
      summit.update({ theme: dark ? "light" : "dark" });
    });
    byId("table").addEventListener("toggle", () => {
      if (byId("table").open !== summit.state.table) summit.update({ table: byId("table").open });
    });
    byId("with").addEventListener("change", () => {
      if (byId("with").value !== "") summit.compare(Number(byId("with").value));
    });
    byId("with").closest("label").hidden = overview.classes.index.length < 2;
    for (const [id, save] of [
      ["save-svg", summit.saveSvg],
      ["save-png", summit.savePng],
    ]) {
      byId(id).addEventListener("click", async () => {
        if (!summit.shown.picture) return summit.say("There is no picture to save.");
        await save(overview, summit.state, summit.shown.picture);
        summit.say("The picture is saved.");
      });
    }
    byId("skip").addEventListener("click", (event) => {
      event.preventDefault(); // the address holds the state
      byId("main").focus();
    });
    document.addEventListener("keydown", (event) => {
      if (
        event.key === "Escape" &&
        summit.state.neuron &&
        !event.target.closest("input, select, #graph")
      )
        summit.walk(null);
      if (event.key === "/" && !event.target.closest("input, select")) {
        event.preventDefault();
        byId("find").focus();
      }
    });
  }

  /* The classes to compare with, by name; after the first picture, for there may be 1,000. */
  function choices() {
    const { index, name } = overview.classes;
    const choice = byId("with");
    const collator = new Intl.Collator("en", { numeric: true });
    const sorted = index
      .map((_, at) => at)
      .sort((one, other) => collator.compare(name[one], name[other]));
    const options = sorted
      .filter((at) => overview.classes.neurons[at])
      .map((at) => el("option", { value: index[at] }, name[at]));
    choice.replaceChildren(choice.options[0], ...options);
    settle(summit.state);
  }

  function read() {
    clearTimeout(writing); // what the address says now is newer
    const state = summit.readState(location.hash);
    if (state.class === null) state.class = overview.start;
    state.with = state.with
      .filter((index) => places.has(index) && index !== state.class)
      .slice(0, MOST_COMPARED);
    summit.state = state;
    return draw();
  }

  async function start() {
    overview.classes.index.forEach((index, at) => places.set(index, at));
    about();
    controls();
    for (const view of [
      summit.sidebar,
      summit.embedding,
      summit.graph,
      summit.classPane,
      summit.neuronPane,
    ])
      view.start(overview);
    window.addEventListener("popstate", read);
    await read();
    const idle = window.requestIdleCallback ?? ((work) => setTimeout(work, 50));
    idle(() => {
      choices();
      summit.embedding.fetch();
    });
  }

  if (overview) start();
  else {
    document.body.classList.add("broken");
    byId("main").classList.add("nothing");
    byId("graph-empty").hidden = false;
    byId("graph-empty").replaceChildren(
      el(
        "p",
        {},
        "data/overview.js does not load. Copy the whole folder, or write it again with summit-graph view.",
      ),
    );
  }
})();
