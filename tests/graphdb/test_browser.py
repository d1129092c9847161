"""The query that `load` prints, pasted into the real Neo4j Browser, draws the class's graph."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from summit_graph import Atlas
from summit_graph.graphdb.connection import Connection
from summit_graph.graphdb.load import load, unload
from summit_graph.graphdb.server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow

PASTE = """text => {
    const data = new DataTransfer();
    data.setData("text/plain", text);
    const target = document.querySelector(".monaco-editor textarea");
    target.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true}));
}"""


def drawn(
    browser: Browser, server: Server, password: str, query: str, screenshot: Path | None = None
) -> Any:
    """The numbers of nodes and relationships that Browser says it displays, and that it drew."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(server.browser_url)
    page.fill("[data-testid=username]", "neo4j")
    page.fill("[data-testid=password]", password)
    page.click("[data-testid=connect]")
    page.get_by_text("You are connected as user").first.wait_for(timeout=60_000)
    page.click(".monaco-editor")
    page.evaluate(PASTE, query)
    page.keyboard.press("Control+Enter")
    said = page.get_by_text("Displaying").first
    said.wait_for(timeout=60_000)
    numbers = tuple(int(number) for number in re.findall(r"\d+", said.inner_text()))
    page.wait_for_timeout(3000)
    nodes = page.locator("svg g.node").count()
    relationships = page.locator("svg g.relationship").count()
    if screenshot is not None:
        page.screenshot(path=screenshot)
    page.close()
    return numbers, (nodes, relationships)


def test_the_first_query_draws_the_attribution_graph(
    browser: Browser, neo4j_server: Server, connection: Connection, demo_atlas: Path
) -> None:
    report = load(demo_atlas, connection)
    try:
        displayed, shapes = drawn(browser, neo4j_server, connection.password, report.first_query)
    finally:
        unload(report.key, connection)
    index = int(re.findall(r"/class/(\d+)'", report.first_query)[0])
    with Atlas.open(demo_atlas) as atlas:
        record = atlas.find(index)
    assert displayed == (record.neurons, record.edges)
    assert shapes == displayed
