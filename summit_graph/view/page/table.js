"use strict";

/* The graph as two tables, for screen readers and for who wants the numbers. Made when it is opened. */
(function () {
  const { el, percent, number } = summit;

  summit.table = function (overview, state, picture) {
    const box = document.getElementById("table-body");
    if (!picture || !picture.neurons.length)
      return box.replaceChildren(el("p", { class: "quiet" }, "There is no graph to list."));
    const classes = picture.compared ? picture.classes : [state.class];
    const of = classes.map((index) => ` of ${summit.nameOf(index)}`);
    const suffix = (which) => (classes.length > 1 ? of[which] : "");
    const amount = (which, count) => {
      if (count === null) return "–";
      const share = summit.shareOf(overview, classes[which], count);
      return share === null ? number(count) : `${number(count)} (${percent(share)})`;
    };
    const head = (...names) =>
      el(
        "thead",
        {},
        el("tr", {}, ...names.flat().map((name) => el("th", { scope: "col" }, name))),
      );
    const each = (make) => classes.map((_, which) => make(which));

    const neurons = el(
      "table",
      { id: "neurons-table" },
      el("caption", {}, `Neurons: ${picture.says}`),
      head(
        "neuron",
        each((which) => `rank${suffix(which)}`),
        each((which) => `images active in${suffix(which)}`),
        "edges in",
        "edges out",
      ),
      el(
        "tbody",
        {},
        ...picture.neurons.map((neuron) =>
          el(
            "tr",
            {},
            el(
              "th",
              { scope: "row" },
              el(
                "button",
                {
                  type: "button",
                  class: "chip",
                  "data-step": neuron.name,
                  onclick: () => summit.walk(neuron),
                },
                neuron.name,
              ),
            ),
            ...each((which) =>
              el("td", {}, neuron.records[which] ? String(neuron.records[which].rank) : "–"),
            ),
            ...each((which) =>
              el(
                "td",
                {},
                neuron.records[which] ? amount(which, neuron.records[which].count) : "–",
              ),
            ),
            el("td", {}, String(neuron.sources.length)),
            el("td", {}, String(neuron.targets.length)),
          ),
        ),
      ),
    );
    const edges = summit.graph.shownEdges();
    const hidden = picture.edges.length - edges.length;
    const influences = el(
      "table",
      { id: "edges-table" },
      el(
        "caption",
        {},
        `Influences, the strongest first${hidden ? ` (${number(hidden)} weaker ones hidden)` : ""}`,
      ),
      head(
        "from",
        "to",
        each((which) => `images${suffix(which)}`),
      ),
      el(
        "tbody",
        {},
        ...edges.map((edge) =>
          el(
            "tr",
            {},
            el("td", {}, edge.source.name),
            el("td", {}, edge.target.name),
            ...each((which) => el("td", {}, amount(which, edge.counts[which]))),
          ),
        ),
      ),
    );
    summit.refill(box, neurons, influences);
  };
})();
