"use strict";

/*
 * What the page shows, as the address says it, so that a view can be sent as a link:
 *
 *   #class=3&with=7&neuron=mixed4d/12&path=mixed4b/3,mixed4c/9&least=0.1&layer=mixed4c
 *
 *   class     index of the chosen class           with     indices of up to three classes that it is
 *                                                          compared with, as in with=7,8
 *   neuron    the chosen neuron, <layer>/<channel>  path   neurons walked through to get there
 *   layer     layer of the embedding              view     graph, embedding or classes: which of the
 *                                                          views has the room (the tab, on a phone)
 *   least     influences below this share of the class's strongest are hidden, 0 to 1
 *   width, height   of the picture, times the usual        find, sort, pin   of the list of classes
 *   examples  0: dataset examples are hidden      theme    light or dark; else as the system has it
 *   table     1: the table beside the picture is open
 *
 * What is as usual is left out of the address.
 */
(function () {
  const VIEWS = ["graph", "embedding", "classes"];
  const SORTS = ["index", "name", "highest", "lowest", "similar"];

  const text = { read: (value) => value, write: (value) => value };
  const whole = {
    read: (value) => (/^\d{1,9}$/.test(value) ? Number(value) : null),
    write: (value) => String(value),
  };
  const between = (low, high) => ({
    read: (value) => {
      const number = Number.parseFloat(value);
      return Number.isFinite(number) ? Math.min(Math.max(number, low), high) : null;
    },
    write: (value) => String(Math.round(value * 1000) / 1000),
  });
  const oneOf = (values) => ({
    read: (value) => (values.includes(value) ? value : null),
    write: (value) => value,
  });
  // Names may hold anything, commas too: each is escaped by itself.
  const names = {
    read: (value) => value.split(",").filter(Boolean).map(unescaped),
    write: (value) =>
      value.map((name) => name.replaceAll("%", "%25").replaceAll(",", "%2C")).join(","),
    same: (one, other) => one.join("\n") === other.join("\n"),
  };
  const indices = {
    read: (value) => [...new Set(value.split(",").map(whole.read))].filter((one) => one !== null),
    write: (value) => value.join(","),
    same: names.same,
  };
  const flag = { read: (value) => value === "1", write: (value) => (value ? "1" : "0") };

  const KINDS = {
    class: [whole, null],
    with: [indices, []],
    neuron: [text, null],
    path: [names, []],
    layer: [text, null],
    view: [oneOf(VIEWS), "graph"],
    least: [between(0, 1), 0],
    width: [between(0.5, 2), 1],
    height: [between(0.5, 2), 1],
    find: [text, ""],
    sort: [oneOf(SORTS), "index"],
    pin: [whole, null],
    examples: [flag, true],
    theme: [oneOf(["light", "dark"]), null],
    table: [flag, false],
  };

  function unescaped(value) {
    return value.replaceAll(/%2C/gi, ",").replaceAll("%25", "%");
  }

  summit.readState = function (hash) {
    const given = new URLSearchParams(hash.replace(/^#/, ""));
    const state = {};
    for (const [name, [kind, usual]] of Object.entries(KINDS)) {
      const value = given.get(name);
      const read = value === null || value === "" ? null : kind.read(value);
      state[name] = read === null ? usual : read;
    }
    return state;
  };

  summit.writeState = function (state) {
    const found = [];
    for (const [name, [kind, usual]] of Object.entries(KINDS)) {
      const value = state[name];
      if (value === null || (kind.same ? kind.same(value, usual) : value === usual)) continue;
      // Slashes and commas stay readable: they need no escape behind a #.
      const written = encodeURIComponent(kind.write(value));
      found.push(`${name}=${written.replaceAll("%2F", "/").replaceAll("%2C", ",")}`);
    }
    return found.length ? `#${found.join("&")}` : "#";
  };
})();
