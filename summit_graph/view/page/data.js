"use strict";

/*
 * The page's data: files that each call summitData(key, value), fetched as scripts, because a page
 * opened by double click (file://) may load scripts but may not fetch.
 *
 *   overview            the model, its layers, all classes            (with the page)
 *   embedding           where the classes stand, layer by layer       (after the first picture)
 *   class-<index>       one class's attribution graph and likenesses  (when it is chosen)
 *   feature-<layer position>-<channel>   a feature visualisation, as a data URI. Not a picture file:
 *                       a canvas that drew one could not be saved under file://.
 *
 * This script comes first; all others hang what they offer to the page on `summit`.
 */
const summit = {};
window.summit = summit;

(function () {
  const arrived = new Map();
  const asked = new Map();

  window.summitData = function (key, value) {
    arrived.set(key, value);
  };

  /* What has arrived under a key, or undefined. */
  summit.have = (key) => arrived.get(key);

  /* A promise of what is under a key. A file that does not load is asked for again next time. */
  summit.load = function (key) {
    if (arrived.has(key)) return Promise.resolve(arrived.get(key));
    if (!asked.has(key)) asked.set(key, fetched(key));
    return asked.get(key);
  };

  function fetched(key) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `data/${key}.js`;
      const failed = () => {
        asked.delete(key);
        reject(new Error(`data/${key}.js does not load. Is it beside this page, and whole?`));
      };
      script.addEventListener("load", () => {
        script.remove();
        if (arrived.has(key)) resolve(arrived.get(key));
        else failed();
      });
      script.addEventListener("error", () => {
        script.remove();
        failed();
      });
      document.head.append(script);
    });
  }
})();
