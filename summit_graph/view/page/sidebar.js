"use strict";

/*
 * The list of classes: search, sort, pin. All rows are in the page, so that the browser's own search
 * finds them too; page.css lets the browser skip the drawing of those out of sight. The first rows
 * come with the first picture, the rest once that stands.
 */
(function () {
  const { el, svg, icon, percent, number, plural } = summit;
  const FIRST_ROWS = 30;
  const rows = []; // by place in overview.classes
  let overview;
  let list;
  let pinned;
  let shown = {};
  let order = [];
  let filled = 0;
  let marked = new Set(); // classes whose rows bear a mark
  let entered = null;

  function start(data) {
    overview = data;
    list = document.getElementById("classes");
    pinned = document.getElementById("pinned");
    const find = document.getElementById("find");
    find.addEventListener("input", () => summit.update({ find: find.value }));
    find.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown" || event.key === "Enter") {
        const [first] = visibleRows();
        if (!first) return;
        event.preventDefault();
        if (event.key === "Enter") first.querySelector(".choose").click();
        else first.querySelector(".choose").focus();
      }
    });
    for (const button of document.querySelectorAll("#sorts button")) {
      const { sort } = button.dataset;
      const known = sort.endsWith("est")
        ? overview.classes.top1.some((value) => value !== null)
        : sort !== "similar" || (overview.hasSimilarity && overview.classes.index.length > 1);
      button.hidden = !known;
      button.addEventListener("click", () => summit.update({ sort }));
    }
    for (const place of [list, pinned]) place.addEventListener("keydown", walked);
  }

  /* The classes in the order asked for, as places in overview.classes. */
  function sorted(state) {
    const { name, index, top1 } = overview.classes;
    const all = name.map((_, at) => at);
    const byIndex = (one, other) => index[one] - index[other];
    if (state.sort === "name") {
      const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
      return all.sort(
        (one, other) => collator.compare(name[one], name[other]) || byIndex(one, other),
      );
    }
    if (state.sort === "highest" || state.sort === "lowest") {
      const sign = state.sort === "highest" ? -1 : 1;
      // Classes without images have no accuracy: they come last either way.
      const value = (at) => (top1[at] === null ? Infinity : sign * top1[at]);
      return all.sort((one, other) => value(one) - value(other) || byIndex(one, other) || 0);
    }
    if (state.sort === "similar") {
      const near = new Map(likenesses(state.class).map(([other], at) => [other, at]));
      near.set(state.class, -1);
      const place = (at) => near.get(index[at]) ?? Infinity;
      return all.sort((one, other) =>
        place(one) === place(other) ? byIndex(one, other) : place(one) - place(other),
      );
    }
    return all.sort(byIndex);
  }

  function likenesses(index) {
    const data = summit.have(`class-${index}`);
    return data && data.similar ? data.similar.overall : [];
  }

  function matches(at, wanted) {
    const { name, synset, index } = overview.classes;
    if (!wanted) return true;
    return (
      folded(name[at]).includes(wanted) ||
      folded(synset[at] || "").includes(wanted) ||
      String(index[at]) === wanted
    );
  }

  const folded = (text) => text.normalize("NFC").toLowerCase().trim();

  function show(state) {
    // Sorted by likeness, the order hangs on the chosen class and on its data having arrived.
    const likeness =
      state.sort === "similar" ? `${state.class} ${likenesses(state.class).length}` : "";
    const wanted = `${state.sort} ${likeness}`;
    if (shown.order !== wanted) {
      order = sorted(state);
      filled = 0;
      list.replaceChildren();
      fill(FIRST_ROWS);
      if (filled < order.length) later(() => fill(order.length));
      list.scrollTop = 0;
    }
    const sort = document.querySelectorAll("#sorts button");
    for (const button of sort)
      button.setAttribute("aria-pressed", String(button.dataset.sort === state.sort));
    const find = document.getElementById("find");
    if (find.value !== state.find) find.value = state.find;
    const looked = shown.find !== state.find || shown.order !== wanted;
    shown = { ...shown, order: wanted, find: state.find };
    if (looked) filter();
    if (shown.pin !== state.pin) pinnedRow(state.pin);
    shown.pin = state.pin;
    mark(state);
  }

  const later = (work) =>
    "requestIdleCallback" in window
      ? requestIdleCallback(work, { timeout: 500 })
      : setTimeout(work, 50);

  function fill(upTo) {
    const fragment = document.createDocumentFragment();
    const to = Math.min(upTo, order.length);
    for (; filled < to; filled += 1) fragment.append(rowOf(order[filled]));
    list.append(fragment);
    filter();
    if (summit.state) mark(summit.state);
  }

  function rowOf(at) {
    if (!rows[at]) rows[at] = row(at);
    return rows[at];
  }

  function row(at) {
    const { index, name, synset, top1, top5, probability } = overview.classes;
    const accuracies = [
      top1[at] === null ? null : `top-1 ${percent(top1[at])}`,
      top5[at] === null ? null : `top-5 ${percent(top5[at])}`,
    ].filter(Boolean);
    const confused = (overview.classes.confused[at] || []).map(
      ([other, count]) => `${summit.nameOf(other)} (${number(count)})`,
    );
    const [most, ...size] = summit.facts(at);
    const facts = [
      ...(accuracies.length ? size : [most, ...size]),
      ...(confused.length ? [`confused with ${confused.join(", ")}`] : []),
    ].join(" · ");
    return el(
      "li",
      { class: "class", "data-class": index[at] },
      el(
        "button",
        {
          type: "button",
          class: "choose",
          tabindex: -1,
          title: synset[at] ? `${name[at]} (${synset[at]})` : name[at],
          onclick: () => summit.choose(index[at]),
        },
        el("span", { class: "name" }, name[at]),
        histogram(probability[at], 60, 14),
        accuracies.length
          ? el("span", { class: "facts" }, [...accuracies, most].join(" · "))
          : null,
        el("span", { class: "facts", title: facts }, facts),
      ),
      el(
        "button",
        {
          type: "button",
          class: "plain pin",
          tabindex: -1,
          title: "Pin at the top",
          "aria-label": `Pin ${name[at]} at the top`,
          onclick: () => summit.update({ pin: summit.state.pin === index[at] ? null : index[at] }),
        },
        icon("pin"),
      ),
      el(
        "button",
        {
          type: "button",
          class: "plain with",
          tabindex: -1,
          title: "Compare with the chosen class",
          "aria-label": `Compare ${name[at]} with the chosen class`,
          onclick: () => summit.compare(index[at]),
        },
        icon("compare"),
      ),
    );
  }

  /* How sure the model is of the true class: ten bars, 0 to 100 %. */
  function histogram(bins, width, height) {
    if (!bins) return null;
    const most = Math.max(1, ...bins);
    const step = width / bins.length;
    const bars = bins.map((count, bin) => {
      const tall = count ? Math.max(1, (count / most) * height) : 0;
      return `M${(bin * step + 0.5).toFixed(1)} ${height}v${(-tall).toFixed(1)}h${(step - 1).toFixed(1)}v${tall.toFixed(1)}z`;
    });
    const says = `Probability of the true class, 0 to 100 %: ${plural(bins.at(-1), "image")} above 90 %`;
    return svg(
      "svg",
      { class: "histogram", width, height: height + 1, role: "img", "aria-label": says },
      svg("title", {}, says),
      svg("path", { class: "base", d: `M0 ${height + 0.5}H${width}` }),
      svg("path", { class: "bars", d: bars.join("") }),
    );
  }

  /* Hides what the search does not find. */
  function filter() {
    const wanted = folded(shown.find || "");
    let found = 0;
    for (const at of order) {
      const fits = matches(at, wanted);
      if (fits) found += 1;
      if (rows[at]) rows[at].hidden = !fits;
    }
    const empty = document.getElementById("classes-empty");
    empty.hidden = found > 0 || !wanted;
    if (!empty.hidden)
      empty.textContent = `No class is called “${shown.find}”. Clear the search to see all ${number(order.length)}.`;
    const title = document.getElementById("classes-title");
    title.textContent = wanted
      ? `${number(found)} of ${number(order.length)}`
      : plural(order.length, "class", "classes");
    if (wanted && filled === order.length) summit.say(`${plural(found, "class", "classes")} found`);
  }

  function pinnedRow(pin) {
    pinned.replaceChildren();
    const at = pin === null ? undefined : summit.place(pin);
    if (at !== undefined) pinned.append(row(at));
  }

  /* Marks the rows of what is chosen, compared and pinned; of 1,000 only those that change. */
  function mark(state) {
    const now = new Set([state.class, ...state.with, state.pin]);
    for (const index of new Set([...marked, ...now])) {
      for (const one of document.querySelectorAll(`.class[data-class="${index}"]`)) {
        const chosen = index === state.class;
        const [choose, pin, compare] = one.querySelectorAll("button");
        one.classList.toggle("chosen", chosen);
        for (const kind of ["second", "third", "fourth"])
          one.classList.toggle(kind, summit.kindOf(state, index) === kind);
        if (chosen) choose.setAttribute("aria-current", "true");
        else choose.removeAttribute("aria-current");
        pin.setAttribute("aria-pressed", String(index === state.pin));
        compare.setAttribute("aria-pressed", String(state.with.includes(index)));
        compare.disabled = chosen;
      }
    }
    marked = now;
    const full = summit.full(state);
    if (full || shown.full)
      for (const one of document.querySelectorAll(".class")) {
        const index = Number(one.dataset.class);
        const joins = index !== state.class && (!full || state.with.includes(index));
        one.querySelector(".with").disabled = !joins;
      }
    shown.full = full;
    const chosen = list.querySelector(".chosen");
    enter(chosen && !chosen.hidden ? chosen : visibleRows()[0]);
    if (shown.chosen !== state.class) {
      shown.chosen = state.class;
      if (chosen) intoSight(chosen, 0.5);
      else if (filled < order.length) shown.chosen = null; // its row comes later
    }
  }

  // Only the list scrolls; scrollIntoView would move the page as well.
  function intoSight(one, part = 0) {
    const box = one.getBoundingClientRect();
    const frame = list.getBoundingClientRect();
    if (box.top < frame.top)
      list.scrollTop += box.top - frame.top - part * (frame.height - box.height);
    else if (box.bottom > frame.bottom)
      list.scrollTop += box.bottom - frame.bottom + part * (frame.height - box.height);
  }

  const setTab = (one, tab) => {
    for (const button of one.querySelectorAll("button")) button.tabIndex = tab;
  };

  /* The one row that Tab comes to. */
  function enter(one) {
    if (entered) setTab(entered, -1);
    entered = one;
    if (one) setTab(one, 0);
  }

  const visibleRows = () => [...pinned.children, ...list.children].filter((one) => !one.hidden);

  /* Arrow keys walk the list; Tab leaves it. */
  function walked(event) {
    const steps = {
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: 10,
      PageUp: -10,
      Home: -Infinity,
      End: Infinity,
    };
    const step = steps[event.key];
    if (step === undefined) return;
    const all = visibleRows();
    const now = all.indexOf(event.target.closest(".class"));
    const next = all[Math.min(Math.max(now + step, 0), all.length - 1)];
    event.preventDefault();
    enter(next);
    next.querySelector(".choose").focus({ preventScroll: true });
    if (next.parentElement === list) intoSight(next);
  }

  summit.histogram = histogram;
  summit.sidebar = { start, show };
})();
