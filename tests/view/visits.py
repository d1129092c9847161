"""A page in a real browser, watched: what it asks for, what its console says, what it refuses."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

WITHIN = 15.0
"""Seconds that something may take; on an idle machine it takes parts of one."""

WATCH = """
window.problems = [];
const arrived = new Set();
let receive;
Object.defineProperty(window, "summitData", {
  get: () => (key, value) => { arrived.add(key); receive(key, value); },
  set: (given) => { receive = given; },
});
addEventListener("securitypolicyviolation", (event) =>
  problems.push(`refused: ${event.violatedDirective} ${event.blockedURI}`));
addEventListener("error", (event) => problems.push(`error: ${event.message}`), true);
addEventListener("unhandledrejection", (event) => problems.push(`rejected: ${event.reason}`));
const watch = new MutationObserver(() => {
  if (!document.querySelector("#graph .node")) return;
  watch.disconnect();
  window.first = { have: [...arrived] };
  requestAnimationFrame(() => setTimeout(() => { first.shown = performance.now(); }));
});
watch.observe(document, { childList: true, subtree: true });
"""


@dataclass
class Visit:
    """An open page. asked: the files it asked for, by their paths below the folder of the pages."""

    page: Page
    base: str
    asked: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def open(self, state: str = "") -> None:
        """Opens the page, as it is when somebody follows a link to it."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.base}index.html{state}")
        self.settle()

    def show(self, state: str) -> None:
        """Shows another state, as the way back does; the pointer is on nothing."""
        self.page.mouse.move(0, 0)
        self.page.evaluate("document.activeElement.blur()")
        self.page.evaluate("location.hash = 'class=-'")
        self.until("summit.state.class !== null && location.hash === '#class=-'")
        self.page.evaluate("state => { location.hash = state; }", state)
        self.page.evaluate("new Promise(requestAnimationFrame)")
        self.settle()

    def settle(self) -> None:
        """Waits until the views show the state."""
        self.page.evaluate("summit.settled()")

    def link(self) -> str:
        """What stands behind the # once the address says what is shown."""
        self.until("location.hash === summit.writeState(summit.state)")
        found: str = self.page.evaluate("location.hash")
        return found

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.page.evaluate("summit.state")
        return found

    def click(self, selector: str, **options: Any) -> None:
        self.page.click(selector, **options)
        self.settle()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
        self.settle()

    def all(self, selector: str) -> Locator:
        return self.page.locator(selector)

    def texts(self, selector: str) -> list[str]:
        """The visible texts of elements."""
        found: list[str] = self.page.eval_on_selector_all(
            selector, "all => all.filter(one => one.checkVisibility()).map(one => one.textContent)"
        )
        return found

    def each(self, selector: str, expression: str) -> list[Any]:
        """A JavaScript expression of each visible element `one`."""
        found: list[Any] = self.page.eval_on_selector_all(
            selector, f"all => all.filter(one => one.checkVisibility()).map(one => {expression})"
        )
        return found

    def classes(self) -> list[int]:
        """The classes that the list shows, by index, from the top."""
        return [int(index) for index in self.each("#classes .class", "one.dataset.class")]

    def neurons(self, selector: str = "#graph .node") -> list[str]:
        """The neurons that the graph shows, by name."""
        return self.each(selector, "one.dataset.neuron")

    def edges(self, selector: str = "#graph .edge") -> list[tuple[str, str]]:
        """The edges that the graph shows, by the names of their ends."""
        found = self.each(selector, "[one.dataset.source, one.dataset.target]")
        return [(source, target) for source, target in found]

    def embedded(self) -> None:
        """Waits until the embedding stands."""
        self.page.wait_for_selector("#embedding .point[cx]", state="attached")

    def until(self, condition: str) -> None:
        """Waits until a JavaScript expression is true. (The page's policy forbids it to wait.)"""
        end = time.monotonic() + WITHIN
        while not self.page.evaluate(condition):
            assert time.monotonic() < end, condition
            self.page.wait_for_timeout(20)


Open = Callable[..., Visit]
"""Opens pages: `open(folder, state, **options of a browser's context)`."""


@contextmanager
def visiting(browser: Browser) -> Iterator[Open]:
    """Opens pages in contexts of their own; in the end, all must have been without a fault.

    A fault is anything that the console says or the policy refuses, a request for anything but a
    file of the folder, or one that failed.
    """
    visits: list[Visit] = []

    def open_pages(
        folder: Path | str, state: str = "", width: int = 1280, height: int = 720, **options: Any
    ) -> Visit:
        base = folder if isinstance(folder, str) else f"{folder.as_uri()}/"
        options = {"reduced_motion": "reduce", **options}
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.add_init_script(WATCH)
        visit = Visit(context.new_page(), base)
        visits.append(visit)
        page = visit.page
        page.set_default_timeout(1000 * WITHIN)
        page.on("console", lambda said: visit.problems.append(f"{said.type}: {said.text}"))
        page.on("pageerror", lambda error: visit.problems.append(str(error)))
        page.on("dialog", lambda dialog: visit.problems.append(f"dialog: {dialog.message}"))

        def failed(request: Any) -> None:
            if request.failure != "net::ERR_ABORTED":  # as when the page is left meanwhile
                visit.problems.append(f"{request.failure}: {request.url}")

        def asked(request: Any) -> None:
            if request.url.startswith(visit.base):
                visit.asked.append(request.url.removeprefix(visit.base).partition("#")[0])
            elif not request.url.startswith(("data:", "blob:", "about:blank")):
                visit.problems.append(f"asked elsewhere: {request.url}")

        page.on("request", asked)
        page.on("requestfailed", failed)
        visit.open(state)
        return visit

    try:
        yield open_pages
        for visit in visits:
            visit.problems += visit.page.evaluate("window.problems ?? []")
            assert not visit.problems, visit.problems
    finally:
        for visit in visits:
            visit.page.context.close()
