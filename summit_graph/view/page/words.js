"use strict";

/* Elements, and numbers in words. Text becomes text nodes only: a name is never read as markup. */
(function () {
  const SVG = "http://www.w3.org/2000/svg";

  function filled(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value === true) element.setAttribute(name, "");
      else if (value !== null && value !== undefined && value !== false) {
        element.setAttribute(name, value);
      }
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  /* An HTML element: attributes; `onclick` and its like are listeners; null and false are left out. */
  summit.el = (tag, attributes = {}, ...children) =>
    filled(document.createElement(tag), attributes, children);

  /* The same in SVG. */
  summit.svg = (tag, attributes = {}, ...children) =>
    filled(document.createElementNS(SVG, tag), attributes, children);

  /* Puts new content into a box. Who was inside by keyboard stays: at its first heading. */
  summit.refill = function (box, ...children) {
    const inside = box.contains(document.activeElement);
    box.replaceChildren(...children.filter(Boolean));
    const heading = inside && box.querySelector("h3");
    if (!heading) return;
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
  };

  /* An icon of those drawn in index.html. */
  summit.icon = (name) =>
    summit.svg(
      "svg",
      { class: "icon", "aria-hidden": "true", viewBox: "0 0 16 16" },
      summit.svg("use", { href: `#icon-${name}` }),
    );

  /* 1281167 -> "1,281,167" */
  const thousands = new Intl.NumberFormat("en-GB"); // slow, so asked only where it does something
  summit.number = (value) => (value < 1000 ? String(value) : thousands.format(value));

  /* 0.534 -> "53 %"; small shares keep a digit, and only all is 100 %. */
  summit.percent = function (share) {
    const value = share * 100;
    let text = value > 0 && value < 10 ? value.toFixed(1).replace(/\.0$/, "") : value.toFixed(0);
    if (value > 0 && text === "0") text = "< 0.1";
    if (value < 100 && text === "100")
      text = value.toFixed(1) === "100.0" ? "> 99.9" : value.toFixed(1);
    return `${text}\u202f%`;
  };

  /* plural(3, "class", "classes") -> "3 classes" */
  summit.plural = (count, one, many = `${one}s`) =>
    `${summit.number(count)} ${count === 1 ? one : many}`;

  /* ["a", "b", "c"] -> "a, b and c" */
  summit.listed = (words) =>
    words.length > 1 ? `${words.slice(0, -1).join(", ")} and ${words.at(-1)}` : words.join("");

  /* A class's name may be a sentence: in running text its beginning will do. */
  summit.brief = (text, most = 40) =>
    text.length > most ? `${text.slice(0, most - 1).trimEnd()}…` : text;

  /* A long name of a layer or path: its end says most. */
  summit.ending = (text, most) => (text.length > most ? `…${text.slice(1 - most)}` : text);
})();
