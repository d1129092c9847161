"""The widgets in a real JupyterLab, Notebook 7 and Voilà: drawn, clicked, and on their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from view import made
from view.jupyter import Jupyter, Visit

from summit_graph import Atlas, Pictures
from summit_graph.view import appearance

pytestmark = pytest.mark.slow

CANVAS = "document.querySelectorAll('.custom-widget')[{at}]?._cyreg?.cy"

WIDGET = """
from summit_graph import Atlas, attribution_widget
atlas = Atlas.open({atlas!r})
widget = attribution_widget(atlas, {name!r})
widget
"""
EXPLORE = """
from summit_graph import Atlas, explore
explorer = explore(Atlas.open({atlas!r}), {name!r})
explorer
"""

# What Voilà's own page asks for elsewhere, whatever the notebook shows: an icon font and MathJax.
VOILA = (
    "https://cdn.jsdelivr.net/npm/@fortawesome/",
    "https://cdnjs.cloudflare.com/ajax/libs/mathjax/",
)


def canvas(at: int) -> str:
    return CANVAS.format(at=at)


def drawn(visit: Visit, at: int = 0) -> Any:
    """Visible neurons and influences, as cytoscape has them, and how many pixels are not white."""
    return visit.page.evaluate(
        f"""() => {{
            const cy = {canvas(at)};
            const count = all => all.filter(one => one.visible()).length;
            const pixels = [...cy.container().querySelectorAll('canvas')].map(canvas => {{
                const data = canvas.getContext('2d').getImageData(
                    0, 0, canvas.width, canvas.height).data;
                let inked = 0;
                for (let at = 3; at < data.length; at += 4) inked += data[at] > 0;
                return inked;
            }});
            return {{nodes: count(cy.nodes('[number]')), edges: count(cy.edges()),
                    inked: Math.max(...pixels)}};
        }}"""
    )


def click(visit: Visit, element: str, at: int = 0) -> None:
    """Clicks an element of a graph with the mouse."""
    x, y = visit.page.evaluate(
        f"""async () => {{
            const cy = {canvas(at)};
            cy.container().scrollIntoView({{block: 'center'}});
            // cytoscape hears of the scrolling in the next frame.
            for (const _ of [1, 2, 3]) await new Promise(requestAnimationFrame);
            const box = cy.container().getBoundingClientRect();
            const place = cy.$('#{element}').renderedPosition();
            return [box.left + place.x, box.top + place.y];
        }}"""
    )
    visit.page.mouse.move(x, y)
    visit.page.mouse.click(x, y)


def wait_drawn(visit: Visit, edges: int, at: int = 0) -> None:
    """Until so many influences are drawn."""
    visit.wait(
        f"edges => {canvas(at)}?.edges().filter(one => one.visible()).length === edges",
        argument=edges,
    )


def ours(visit: Visit) -> list[str]:
    """What the console says of our widgets or of what draws them."""
    return [said for said in visit.errors if "cytoscape" in said or "widget" in said.lower()]


@pytest.mark.parametrize("place", ["lab", "notebook", "voila"])
def test_the_widget_is_drawn_and_answers(
    jupyter: Jupyter, pictured_atlas: Path, place: str
) -> None:
    name = jupyter.write(f"{place}.ipynb", WIDGET.format(atlas=str(pictured_atlas), name="three"))
    with Atlas.open(pictured_atlas) as atlas:
        graph = atlas.attribution_graph("three")
        known, first = Pictures(atlas), graph.neurons[0].name
        expected = 1 + len(known.diverse(first)) + len(known.patches(first))
    with getattr(jupyter, place)(name) as visit:
        wait_drawn(visit, len(graph.edges))
        seen = drawn(visit)
        assert seen["nodes"] == len(graph.neurons)
        assert seen["inked"] > 10_000
        # All of it is in view, as large as it can be.
        box, height = visit.page.evaluate(
            f"() => [{canvas(0)}.elements().renderedBoundingBox(), {canvas(0)}.height()]"
        )
        assert height == 480
        assert 0 <= box["y1"] < 40
        assert height - 40 < box["y2"] <= height

        click(visit, "n0")
        details = visit.page.get_by_role("heading", name=first)
        details.wait_for(timeout=10_000)
        visit.page.get_by_text(f"active in {graph.neurons[0].count} images").first.wait_for()
        pictures = visit.page.locator("h4 ~ div img")
        assert pictures.count() == expected
        assert pictures.first.evaluate("image => image.naturalWidth > 0")

        more = visit.page.locator("select:visible").filter(has_text="go to")
        assert "go" in more.evaluate("list => list.selectedOptions[0].text")

        slider = visit.page.get_by_role("slider").first
        slider.focus()
        for _ in range(5):
            slider.press("PageUp")
        visit.page.get_by_text("25%", exact=True).wait_for()
        strong = sum(edge.count >= 0.25 * graph.edges[0].count for edge in graph.edges)
        assert 0 < strong < len(graph.edges)
        wait_drawn(visit, strong)

        visit.page.get_by_role("button", name="Save picture").click()
        with visit.page.expect_download() as download:
            visit.page.get_by_role("link", name="PNG", exact=True).click()
        assert download.value.suggested_filename == "three.png"
        content = Path(download.value.path()).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert ours(visit) == []
        foreign = [one for one in visit.foreign if place != "voila" or not one.startswith(VOILA)]
        assert foreign == []


def test_the_views_follow_each_other_in_jupyterlab(jupyter: Jupyter, thousand_atlas: Path) -> None:
    """With names that would do harm as markup, on a page of 1,000 classes."""
    hostile = 20
    name = jupyter.write("explore.ipynb", EXPLORE.format(atlas=str(thousand_atlas), name=hostile))
    with Atlas.open(thousand_atlas) as atlas:
        graphs = {index: atlas.attribution_graph(index) for index in (hostile, 21)}
    with jupyter.lab(name, height=1400) as visit:
        wait_drawn(visit, len(graphs[hostile].edges), at=1)
        assert drawn(visit)["nodes"] == 300
        assert visit.page.get_by_role("heading", name=made.name(hostile)).count() == 2
        assert visit.page.title() != "owned"
        assert visit.page.evaluate("() => document.querySelector('img[src=x]') === null")

        options = visit.page.get_by_role("listbox")
        assert options.evaluate("list => list.options.length") == 1000
        visit.page.get_by_placeholder("Search 1,000 classes").fill("</script>")
        visit.wait("() => document.querySelector('select[size]').options.length === 1")
        options.select_option(index=0)
        wait_drawn(visit, len(graphs[21].edges), at=1)
        visit.page.get_by_role("heading", name=made.name(21)).first.wait_for()

        # A point that stands alone: the one whose nearest is the farthest.
        alone = visit.page.evaluate(
            f"""() => {{
                const all = {canvas(0)}.nodes().filter(one => one.visible()).toArray();
                const away = (one, other) => Math.hypot(
                    one.position('x') - other.position('x'),
                    one.position('y') - other.position('y'));
                const free = one => Math.min(
                    ...all.filter(other => other !== one).map(other => away(one, other)));
                return all.reduce((a, b) => free(b) > free(a) ? b : a).data('number');
            }}"""
        )
        click(visit, f"c{alone}")
        visit.page.get_by_role("heading", name=made.name(alone)).first.wait_for()
        assert visit.page.title() != "owned"
        assert ours(visit) == []
        assert visit.foreign == []


def test_classes_are_compared_in_jupyterlab(jupyter: Jupyter, pictured_atlas: Path) -> None:
    name = jupyter.write("compare.ipynb", EXPLORE.format(atlas=str(pictured_atlas), name=3))
    with Atlas.open(pictured_atlas) as atlas:
        edges = [
            {(edge.source, edge.target) for edge in atlas.attribution_graph(index).edges}
            for index in (3, 8, 5, 9)
        ]
    with jupyter.lab(name, height=1400) as visit:
        wait_drawn(visit, len(edges[0]), at=1)
        more = visit.page.get_by_label("Compare with")
        for at, other in enumerate(("eight", "five", "nine"), 1):
            assert more.evaluate("list => list.selectedOptions[0].text") == "choose…"
            more.select_option(other)
            wait_drawn(visit, len(set.union(*edges[: at + 1])), at=1)
            button = visit.page.get_by_role("button", name=f"✕ {other}")
            button.wait_for()
            border = button.evaluate("button => getComputedStyle(button).borderTopColor")
            colour = appearance.CLASSES[at]
            rgb = ", ".join(str(int(colour[from_ : from_ + 2], 16)) for from_ in (1, 3, 5))
            assert border == f"rgb({rgb})"
        full = visit.page.get_by_label("Four at most")
        assert full.is_disabled()
        visit.page.get_by_title("Take away ‘five’").click()
        wait_drawn(visit, len(edges[0] | edges[1] | edges[3]), at=1)
        visit.page.get_by_role("button", name="✕ five").wait_for(state="detached")
        assert more.is_enabled()
        assert more.evaluate("list => list.selectedOptions[0].text") == "choose…"
        assert ours(visit) == []
