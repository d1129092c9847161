"use strict";

/*
 * Zoom and pan of a picture: wheel, drag, two fingers; buttons and keys call `by` and `pan`.
 * A view is {x, y, k}: a place p of the picture stands at k * p + (x, y) on the screen.
 */
(function () {
  const DRAG = 4; // pixels a pointer moves before it is no click any more

  summit.zoomable = function (svg, { least, most, changed }) {
    const pointers = new Map();
    let dragging = false;
    const zoom = { view: { x: 0, y: 0, k: 1 }, touched: false };

    zoom.set = function (view) {
      zoom.view = view;
      changed(view);
    };

    /* Zooms by a factor about a place on the screen; the middle if none is given. */
    zoom.by = function (factor, place) {
      const box = svg.getBoundingClientRect();
      const { x, y } = place || { x: box.width / 2, y: box.height / 2 };
      const now = zoom.view;
      const k = Math.min(Math.max(now.k * factor, least), most);
      zoom.touched = true;
      zoom.set({ k, x: x - ((x - now.x) * k) / now.k, y: y - ((y - now.y) * k) / now.k });
    };

    zoom.pan = function (x, y) {
      zoom.touched = true;
      zoom.set({ ...zoom.view, x: zoom.view.x + x, y: zoom.view.y + y });
    };

    const local = (event) => {
      const box = svg.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    };

    svg.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        const lines = event.deltaMode === 1 ? 30 : 1;
        const speed = event.ctrlKey ? 0.01 : 0.0015; // a pinch on a touchpad comes as ctrl + wheel
        zoom.by(Math.exp(-event.deltaY * lines * speed), local(event));
      },
      { passive: false },
    );

    svg.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      if (!pointers.size) dragging = false;
      pointers.set(event.pointerId, { ...local(event), from: local(event) });
    });

    svg.addEventListener("pointermove", (event) => {
      const was = pointers.get(event.pointerId);
      if (!was) return;
      const now = local(event);
      if (!dragging && Math.hypot(now.x - was.from.x, now.y - was.from.y) < DRAG) return;
      if (!dragging) {
        dragging = true;
        svg.setPointerCapture(event.pointerId);
        svg.classList.add("dragging");
      }
      const other = [...pointers].find(([id]) => id !== event.pointerId);
      if (other) {
        const fixed = other[1];
        const before = Math.hypot(was.x - fixed.x, was.y - fixed.y);
        const after = Math.hypot(now.x - fixed.x, now.y - fixed.y);
        if (before > 0)
          zoom.by(after / before, { x: (now.x + fixed.x) / 2, y: (now.y + fixed.y) / 2 });
      } else {
        zoom.pan(now.x - was.x, now.y - was.y);
      }
      pointers.set(event.pointerId, { ...now, from: was.from });
    });

    const ended = (event) => {
      pointers.delete(event.pointerId);
      if (!pointers.size) svg.classList.remove("dragging");
    };
    svg.addEventListener("pointerup", ended);
    svg.addEventListener("pointercancel", ended);
    // A finger or button lifted outside, before the drag began, must not stay down.
    svg.addEventListener("pointerleave", (event) => {
      if (!dragging) ended(event);
    });

    // The click that ends a drag chooses nothing.
    svg.addEventListener(
      "click",
      (event) => {
        if (dragging) event.stopPropagation();
        dragging = false;
      },
      { capture: true },
    );

    /* Keys that every picture knows. Gives whether it was one. */
    zoom.key = function (event) {
      if (event.key === "+" || event.key === "=") zoom.by(1.25);
      else if (event.key === "-") zoom.by(0.8);
      else return false;
      event.preventDefault();
      return true;
    };

    return zoom;
  };
})();
