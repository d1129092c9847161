"""The pages in a real browser: each control is used, and what it does is seen in the page."""

from __future__ import annotations

import io
import re
import shutil
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from view import made
from view.test_pages import data
from view.visits import Open, Visit, visiting

from summit_graph.atlas.atlas import Atlas
from summit_graph.view import appearance
from summit_graph.view.layout import Edge, layout
from summit_graph.view.scene import scene
from summit_graph.view.serving import CONTENT_SECURITY_POLICY, address, page_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """Opens pages, which must be without a fault in the end."""
    with visiting(browser) as opened:
        yield opened


@pytest.fixture(scope="module")
def watched(browser: Browser) -> Iterator[Open]:
    """The same for pages that many tests use."""
    with visiting(browser) as opened:
        yield opened


@pytest.fixture(scope="module")
def demo(watched: Open, demo_pages: Path) -> Visit:
    """The pages of the demo. A test opens the state that it begins with."""
    return watched(demo_pages)


@pytest.fixture(scope="module")
def thousand(watched: Open, thousand_pages: Path) -> Visit:
    return watched(thousand_pages)


@pytest.fixture(scope="module")
def digits(pictured_atlas: Path) -> Iterator[Atlas]:
    with Atlas.open(pictured_atlas) as atlas:
        yield atlas


@pytest.fixture(scope="module")
def many(thousand_atlas: Path) -> Iterator[Atlas]:
    with Atlas.open(thousand_atlas) as atlas:
        yield atlas


# All pages


@pytest.mark.parametrize(
    ("name", "served"),
    [
        ("demo", False),
        ("demo", True),
        ("lite", False),
        ("published", False),
        ("thousand", False),
        ("thousand", True),
    ],
)
def test_a_page_opens_with_the_graph_of_the_first_class(
    name: str, served: bool, visit: Open, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(f"{name}_pages")
    if served:
        server = page_server(folder)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        request.addfinalizer(thread.join)
        request.addfinalizer(server.shutdown)
    page = visit(address(server) if served else folder)
    atlas = "pictured" if name == "demo" else name
    with Atlas.open(request.getfixturevalue(f"{atlas}_atlas")) as opened:
        graph = opened.attribution_graph(page.state()["class"])
        record = graph.record
        assert (record.images or 0) == max(
            found.images or 0 for found in opened.classes if found.neurons
        )
        assert sorted(page.neurons()) == sorted(neuron.name for neuron in graph.neurons)
        assert sorted(page.edges()) == sorted((edge.source, edge.target) for edge in graph.edges)
        assert page.texts("#class-title") == [record.name]
        about = page.texts("#about")[0]
        assert opened.info()["dataset"]["name"] in about
        assert page.texts("#title") == [opened.info()["model"]["name"]]
        if record.images is not None:
            images = sum(found.images or 0 for found in opened.classes)
            assert f"{images:,} images" in about
            page.embedded()
            assert len(page.each(".point", "1")) == sum(
                found.images != 0 for found in opened.classes
            )
        else:
            assert "No embedding" in page.texts("#embedding-empty")[0]
        rows = [layer.name for layer in opened.layers]
        heights = page.each(
            ".row-names text", "[one.lastChild.data, one.getBoundingClientRect().y]"
        )
        lowest_first = [text for text, _ in sorted(heights, key=lambda row: -row[1])]
        assert lowest_first == [name for name in rows if name in lowest_first]
    assert page.texts("#sentence")[0]
    assert page.texts("#legend")[0]


def test_a_thousand_classes_show_the_first_graph_within_a_second(
    visit: Open, thousand_pages: Path
) -> None:
    """On a machine that does nothing else it takes some 0.3 s; tests run on busy ones."""
    page = visit(thousand_pages)
    page.until("window.first?.shown")
    first = page.page.evaluate("first")
    assert first["shown"] < 3000
    assert first["have"] == ["overview", "class-0"]
    loaded = [f"data/{key}.js" for key in first["have"]]
    assert sum((thousand_pages / name).stat().st_size for name in loaded) < 250_000
    page.embedded()
    page.click("#classes [data-class='3'] .choose")
    asked = [name for name in page.asked if name.startswith("data/")]
    assert asked == [*loaded, "data/embedding.js", "data/class-3.js"]


@pytest.mark.parametrize(("name", "every"), [("demo", 1), ("lite", 1), ("published", 10)])
def test_the_layout_is_the_same_as_in_python(
    name: str, every: int, watched: Open, request: pytest.FixtureRequest
) -> None:
    """Exactly; of the published graphs every tenth."""
    folder = request.getfixturevalue(f"{name}_pages")
    graphs = []
    for index in data(folder, "overview")["classes"]["index"][::every]:
        told = data(folder, f"class-{index}")
        graphs.append(([neuron["layer"] for neuron in told["neurons"]], told["edges"]))
    found = watched(folder).page.evaluate(
        "all => all.map(([rows, edges]) => summit.layout(rows, edges).map(({x, row}) => [x, row]))",
        graphs,
    )
    assert len(found) == len(graphs)
    for places, (rows, edges) in zip(found, graphs, strict=True):
        assert [tuple(place) for place in places] == list(
            layout(rows, [Edge(*edge) for edge in edges])
        )


def test_colours_and_sizes_are_those_of_figures(demo: Visit, digits: Atlas) -> None:
    demo.show("#class=3")
    names = ("first", "second", "third", "fourth", "shared", "edge", "chosen")
    colours = demo.page.evaluate(
        "names => names.map(name => getComputedStyle(document.documentElement)"
        ".getPropertyValue(`--${name}`).trim())",
        list(names),
    )
    assert [colour.upper() for colour in colours] == [
        *appearance.CLASSES, appearance.SHARED, appearance.EDGE, appearance.CHOSEN
    ]  # fmt: skip
    graph = digits.attribution_graph(3)
    counts = {neuron.name: neuron.count for neuron in graph.neurons}
    sides = demo.each("#graph .node", "[one.dataset.neuron, one.querySelector('.frame').width."
                      "baseVal.value]")  # fmt: skip
    most = max(counts.values())
    assert {name: pytest.approx(appearance.side(counts[name], most)) for name in counts} == dict(
        map(tuple, sides)
    )
    strongest = max(edge.count for edge in graph.edges)
    drawn = demo.each(
        "#graph .edge",
        "[one.dataset.source, one.dataset.target, one.getAttribute('stroke-width'),"
        "one.getAttribute('stroke-opacity')]",
    )
    assert {(source, target): (width, opacity) for source, target, width, opacity in drawn} == {
        (edge.source, edge.target): (
            f"{appearance.width(edge.count, strongest):.2f}",
            f"{appearance.opacity(edge.count, strongest):.2f}",
        )
        for edge in graph.edges
    }
    stroke = "getComputedStyle(one).stroke"
    assert set(demo.each("#graph .node .frame", stroke)) == {rgb(appearance.CLASSES[0])}
    assert set(demo.each("#graph .edge", stroke)) == {rgb(appearance.EDGE)}


def rgb(colour: str) -> str:
    return "rgb({}, {}, {})".format(*(int(colour[at : at + 2], 16) for at in (1, 3, 5)))


def test_the_policy_of_the_page_is_the_servers(demo: Visit) -> None:
    """The server adds what a page cannot say of itself."""
    meta = demo.page.get_attribute("meta[http-equiv=Content-Security-Policy]", "content")
    assert meta is not None
    own, served = ({part.strip() for part in text.split(";")} for text in (
        meta, CONTENT_SECURITY_POLICY
    ))  # fmt: skip
    assert served - own == {"frame-ancestors 'none'"}
    assert own < served
    assert {"default-src 'none'", "script-src 'self'", "style-src 'self'"} < own


# The list of classes


def test_search_finds_names_and_says_when_there_are_none(demo: Visit) -> None:
    demo.show("#class=3")
    demo.page.fill("#find", "EI")
    assert demo.texts("#classes .name") == ["eight"]
    assert demo.texts("#classes-title") == ["1 of 10"]
    assert demo.state()["find"] == "EI"
    demo.page.fill("#find", "eleven")
    assert demo.classes() == []
    assert "eleven" in demo.texts("#classes-empty")[0]
    demo.page.fill("#find", "ni")
    demo.page.press("#find", "Enter")
    demo.settle()
    assert demo.texts("#class-title") == ["nine"]
    demo.page.fill("#find", "")
    assert len(demo.classes()) == 10


def test_the_list_sorts_and_each_button_says_what_it_does(demo: Visit, digits: Atlas) -> None:
    demo.show("#class=3")
    by_name = [record.index for record in sorted(digits.classes, key=lambda found: found.name)]
    top1 = {record.index: record.top1 or 0 for record in digits.classes}
    similar = [3, *(found.index for found in digits.similar(3))]
    for sort, order, says in (
        ("name", by_name, "A to Z"),
        ("highest", sorted(top1, key=lambda index: (-top1[index], index)), "highest first"),
        ("lowest", sorted(top1, key=lambda index: (top1[index], index)), "lowest first"),
        ("similar", similar, "alike"),
        ("index", sorted(top1), "order"),
    ):
        button = f"#sorts [data-sort={sort}]"
        demo.click(button)
        assert demo.classes() == order
        assert says in str(demo.page.get_attribute(button, "title"))
        assert demo.texts("#sorts [aria-pressed=true]") == demo.texts(button)
    demo.click("#sorts [data-sort=similar]")
    demo.click("#classes [data-class='8'] .choose")
    assert demo.classes() == [8, *(found.index for found in digits.similar(8))]


def test_a_row_says_images_accuracy_neurons_and_confusions(demo: Visit, digits: Atlas) -> None:
    demo.show("#class=3")
    record = digits.find(8)
    row = "#classes [data-class='8']"
    says = " ".join(demo.texts(f"{row} .facts"))
    assert f"{record.images} images" in says
    assert f"{record.neurons} neurons" in says
    assert "top-1 95\u202f%" in says
    assert "top-5 100\u202f%" in says
    confused = [f"{found.name} ({found.count})" for found in digits.confusions(8)]
    assert f"confused with {', '.join(confused)}" in says
    path = demo.page.get_attribute(f"{row} .histogram .bars", "d")
    assert path is not None
    heights = [float(height) for height in re.findall(r"v-([\d.]+)h", path)]
    assert record.probability is not None
    full = max(record.probability)
    assert len(heights) == sum(count > 0 for count in record.probability)
    shown = [count for count in record.probability if count]
    most = max(heights)
    assert heights == pytest.approx([max(1, most * count / full) for count in shown], abs=0.06)


def test_a_class_can_be_pinned_at_the_top(demo: Visit) -> None:
    demo.show("#class=3")
    demo.click("#classes [data-class='7'] .pin")
    assert demo.texts("#pinned .name") == ["seven"]
    assert demo.state()["pin"] == 7
    demo.page.fill("#find", "two")
    demo.click("#classes [data-class='2'] .choose")
    assert demo.texts("#pinned .name") == ["seven"]
    demo.click("#pinned .pin")
    assert demo.texts("#pinned .name") == []


def test_a_class_is_chosen_and_the_way_back_works(demo: Visit, digits: Atlas) -> None:
    demo.show("#class=3")
    demo.click("#classes [data-class='5'] .choose")
    graph = digits.attribution_graph(5)
    assert sorted(demo.neurons()) == sorted(neuron.name for neuron in graph.neurons)
    assert demo.link() == "#class=5"
    assert demo.each("#classes .chosen", "one.dataset.class") == ["5"]
    demo.page.go_back()
    demo.until("summit.state.class === 3")
    demo.settle()
    assert demo.texts("#class-title") == ["three"]


# The class, and two of them


def test_the_class_says_its_numbers_confusions_and_neighbours(demo: Visit, digits: Atlas) -> None:
    demo.show("#class=8")
    record = digits.find(8)
    says = demo.texts("#class-pane")[0]
    assert f"{record.images} images · {record.neurons} neurons · {record.edges} edges" in says
    names = [found.name for found in digits.confusions(8)]
    assert demo.texts("#confusions .chip") == names
    for layer in digits.layers:
        near = [found.name for found in digits.similar(8, layer.name, limit=4)]
        assert demo.texts(f"#neighbours [data-layer='{layer.name}'] .chip") == near
    overall = [found.name for found in digits.similar(8, limit=4)]
    assert demo.texts("#neighbours [data-layer=overall] .chip") == overall
    demo.click("#neighbours [data-layer=overall] .chip >> nth=0")
    assert demo.texts("#class-title") == overall[:1]


@pytest.mark.parametrize("way", ["row", "select", "confusion"])
def test_two_classes_in_one_picture(demo: Visit, digits: Atlas, way: str) -> None:
    demo.show("#class=8")
    if way == "row":
        demo.click("#classes [data-class='3'] .with")
    elif way == "select":
        demo.until("document.querySelector('#with').options.length > 9")
        demo.page.select_option("#with", label="three")
    else:
        demo.click("#confusions [data-compare='3']")
    demo.settle()
    compared = digits.compare(8, 3)
    for kind, neurons in (
        ("shared", [shared.name for shared in compared.shared]),
        ("first", [neuron.name for neuron in compared.only_first]),
        ("second", [neuron.name for neuron in compared.only_second]),
    ):
        assert sorted(demo.neurons(f"#graph .node.of-{kind}")) == sorted(neurons)
    doubled = demo.each("#graph .node", "one.querySelector('.double') ? one.dataset.of : null")
    assert doubled.count("shared") == len(compared.shared)
    assert set(doubled) == {"shared", None}
    stroke = "getComputedStyle(one).stroke"
    for kind, colour in (("shared", appearance.SHARED), ("second", appearance.CLASSES[1])):
        assert set(demo.each(f"#graph .of-{kind} .frame", stroke)) == {rgb(colour)}
    assert f"share {len(compared.shared)} neurons" in demo.texts("#sentence")[0]
    legend = [text.strip() for text in demo.texts("#legend .entry")]
    assert {"eight", "both", "three"} < set(legend)
    first, second = (digits.attribution_graph(index) for index in (8, 3))
    both = {(edge.source, edge.target) for graph in (first, second) for edge in graph.edges}
    assert set(demo.edges()) == both
    assert demo.link() == "#class=8&with=3"
    demo.click("#compared [data-away='3']")
    assert len(demo.neurons()) == len(first.neurons)
    assert demo.link() == "#class=8"


def test_four_classes_in_one_picture(demo: Visit, digits: Atlas) -> None:
    demo.show("#class=8")
    demo.until("document.querySelector('#with').options.length > 9")
    for wanted in ("three", "five", "zero"):
        demo.page.select_option("#with", label=wanted)
        demo.settle()
    chosen = (8, 3, 5, 0)
    assert demo.link() == "#class=8&with=3,5,0"
    assert demo.texts("#class-title") == ["eight, three, five and zero"]
    # No fifth: neither from the choice nor from the list.
    assert demo.page.is_disabled("#with")
    assert demo.page.is_disabled("#classes [data-class='1'] .with")
    assert demo.page.is_enabled("#classes [data-class='5'] .with")
    drawn = scene(digits, 8, [3, 5, 0])
    expected = {
        neuron.name: ("first", "second", "third", "fourth")[neuron.owners[0]]
        if len(neuron.owners) == 1
        else "shared"
        for neuron in drawn.neurons
    }
    assert dict(demo.each("#graph .node", "[one.dataset.neuron, one.dataset.of]")) == expected
    assert set(expected.values()) == {"first", "second", "third", "fourth", "shared"}
    assert demo.neurons() == [neuron.name for neuron in drawn.neurons]
    strengths = {
        (drawn.neurons[edge.source].name, drawn.neurons[edge.target].name): edge.width
        for edge in drawn.edges
    }
    widths = demo.each(
        "#graph .edge",
        "[one.dataset.source, one.dataset.target, Number(one.getAttribute('stroke-width'))]",
    )
    assert {(source, target): width for source, target, width in widths} == {
        ends: pytest.approx(width, abs=0.006) for ends, width in strengths.items()
    }
    for kind, colour in zip(
        ("first", "second", "third", "fourth"), appearance.CLASSES, strict=True
    ):
        for where in (f"#graph .of-{kind} .frame", f"#graph .edge.of-{kind}"):
            assert set(demo.each(where, "getComputedStyle(one).stroke")) == {rgb(colour)}
    graphs = [digits.attribution_graph(index) for index in chosen]
    names = [{neuron.name for neuron in graph.neurons} for graph in graphs]
    everywhere = set.intersection(*names)
    (said,) = demo.texts("#sentence")
    part = sum(kind == "shared" for kind in expected.values()) - len(everywhere)
    assert f"share {len(everywhere)} neuron" in said
    assert f", some of them {part} more;" in said
    for name, kind in (("eight", "first"), ("zero", "fourth")):
        own = list(expected.values()).count(kind)
        assert f"{own} of “{name}” alone" in said.replace("are of", "of")
    assert len(demo.texts("#neighbours .parting")) == 3
    # A shared neuron says what it is to each of the classes that have it.
    shared = max(drawn.neurons, key=lambda neuron: len(neuron.owners))
    demo.page.hover(f"#graph [data-neuron='{shared.name}'] .tile")
    demo.settle()
    (pane,) = demo.texts("#neuron-pane .heading")
    for place, record in enumerate(shared.records):
        name = digits.find(chosen[place]).name
        assert (f"{name}: rank" in pane) == (record is not None)
        if record is not None:
            assert f"{name}: rank {record.rank}, active in" in pane
    demo.click("#compared [data-away='5']")
    assert demo.link() == "#class=8&with=3,0"
    # Who is chosen from among the compared is compared no more.
    demo.click("#classes [data-class='0'] .choose")
    assert demo.link() == "#class=0&with=3"


# The embedding


def test_points_move_from_layer_to_layer(visit: Open, demo_pages: Path, digits: Atlas) -> None:
    page = visit(demo_pages, "#class=3", reduced_motion="no-preference")
    page.embedded()
    layers = [layer.name for layer in digits.layers]
    options = page.page.eval_on_selector_all("#layer option", "all => all.map(one => one.value)")
    assert options == layers
    assert page.page.input_value("#layer") == layers[-1]
    last = places(page)
    page.page.click("#layer-before")
    assert page.page.input_value("#layer") == layers[-2]
    page.until(f"{PLACES}['3'] !== {last['3']}")
    between = places(page)
    before: dict[str, float] = {}
    while places(page) != before:
        before = places(page)
        page.page.wait_for_timeout(100)
    for index, some in between.items():
        low, high = sorted([last[index], before[index]])
        assert low - 0.2 <= some <= high + 0.2
    assert any(before[index] != some != last[index] for index, some in between.items())
    page.page.select_option("#layer", layers[0])
    assert page.page.is_disabled("#layer-before")
    assert page.link() == "#class=3&layer=conv1"
    page.page.click("#layer-after")
    assert page.page.input_value("#layer") == layers[1]


PLACES = (
    "Object.fromEntries([...document.querySelectorAll('.point[cx]')]"
    ".map(point => [point.dataset.class, Number(point.getAttribute('cx'))]))"
)


def places(page: Visit) -> dict[str, float]:
    """Where the classes stand in the embedding, from left to right."""
    found: dict[str, float] = page.page.evaluate(PLACES)
    return found


def test_points_do_not_move_for_who_wants_it_so(demo: Visit) -> None:
    demo.show("#class=3")
    demo.embedded()
    before = places(demo)
    demo.click("#layer-before")
    demo.until(f"{PLACES}['3'] !== {before['3']}")
    after = places(demo)
    demo.page.wait_for_timeout(250)
    assert places(demo) == after


def test_a_point_names_and_chooses_its_class(demo: Visit, digits: Atlas) -> None:
    demo.show("#class=3&layer=conv2")
    demo.embedded()
    demo.until("document.querySelector('.point.near')")
    near = {int(index) for index in demo.each(".point.near", "one.dataset.class")}
    assert near == {found.index for found in digits.similar(3, "conv2")}
    demo.page.hover(".point[data-class='7']", force=True)
    demo.until("[...document.querySelectorAll('.names text')].some(o => o.textContent == 'seven')")
    demo.click(".point[data-class='7']", force=True)
    assert demo.texts("#class-title") == ["seven"]
    assert demo.each(".point[aria-selected=true]", "one.dataset.class") == ["7"]


def test_the_embedding_zooms_and_takes_the_room_of_the_graph(thousand: Visit) -> None:
    thousand.show("#class=15")
    thousand.embedded()
    names = len(thousand.texts(".names text"))
    spread = (
        "(all => Math.max(...all) - Math.min(...all))"
        "([...document.querySelectorAll('.point[cx]')].map(point => point.getAttribute('cx')))"
    )
    wide = thousand.page.evaluate(spread)
    thousand.page.hover("#embedding")
    for _ in range(4):
        thousand.page.click("#embedding-in")
    thousand.page.wait_for_timeout(100)
    assert thousand.page.evaluate(spread) == pytest.approx(1.4**4 * wide, rel=0.02)
    assert len(thousand.texts(".names text")) <= 45
    thousand.page.click("#embedding-out")
    thousand.page.click("#embedding-fit")
    thousand.page.wait_for_timeout(100)
    assert thousand.page.evaluate(spread) == pytest.approx(wide, abs=0.2)
    assert 1 <= names <= 45
    box = thousand.all("#embedding").bounding_box()
    assert box is not None
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    thousand.page.mouse.move(*middle)
    thousand.page.mouse.wheel(0, -300)
    thousand.page.wait_for_timeout(100)
    assert thousand.page.evaluate(spread) > wide + 5
    thousand.click("#embedding-large")
    large = thousand.all("#embedding").bounding_box()
    assert large is not None
    assert large["width"] > 2 * box["width"]
    assert not thousand.all("#main").is_visible()
    assert thousand.state()["view"] == "embedding"
    thousand.click("#embedding-large")
    assert thousand.all("#graph").is_visible()


# The graph


def test_pointing_at_a_neuron_shows_its_edges_alone_and_its_pictures(
    demo: Visit, digits: Atlas
) -> None:
    demo.show("#class=8")
    neuron = digits.attribution_graph(8).neurons[0]
    demo.page.hover(f"[data-neuron='{neuron.name}'] .frame")
    edges = {
        (edge.source, edge.target)
        for edge in digits.attribution_graph(8).edges
        if neuron.name in (edge.source, edge.target)
    }
    assert set(demo.edges("#graph .edge.near")) == edges
    faded = demo.each("#graph .edge:not(.near)", "Number(getComputedStyle(one).strokeOpacity)")
    assert max(faded) == pytest.approx(0.12)
    joined = {name for edge in edges for name in edge}
    clear = demo.each("#graph .node", "[one.dataset.neuron, getComputedStyle(one).opacity]")
    assert {name for name, opacity in clear if opacity == "1"} == joined
    assert demo.texts("#neuron-name") == [neuron.name]
    assert f"rank {neuron.rank}" in demo.texts("#neuron-pane .heading")[0]
    assert len(demo.texts("#diverse .tile")) == 2
    paths = [example.path for example in digits.examples(neuron.name)]
    tiles = demo.each("#examples-of .tile", "one.getAttribute('aria-label')")
    assert [label.partition(" (activation")[0] for label in tiles] == paths
    pictures = demo.each("#neuron-pane .tile", "getComputedStyle(one).backgroundImage")
    assert {picture.partition("pictures/")[2] for picture in pictures} == {
        f"{name}.webp\")" for name in (file_name(digits, neuron.name, "diverse"),
                                       file_name(digits, neuron.name, "examples"))
    }  # fmt: skip
    assert (
        demo.page.evaluate("document.querySelector('#neuron-pane .large img').naturalWidth") >= 48
    )
    demo.page.mouse.move(5, 5)
    demo.until("!document.querySelector('#graph.focusing')")
    assert demo.all("#class-pane").is_visible()


def file_name(atlas: Atlas, neuron: str, kind: str) -> str:
    layer, _, channel = neuron.rpartition("/")
    place = [found.name for found in atlas.layers].index(layer)
    return f"{place}-{channel}-{kind}"


def test_pointing_at_an_edge_shows_both_ends(demo: Visit, digits: Atlas) -> None:
    demo.show("#class=1")
    edge = digits.attribution_graph(1).edges[0]
    selector = f".edge[data-source='{edge.source}'][data-target='{edge.target}']"
    number = demo.page.get_attribute(selector, "data-edge")
    place = demo.page.evaluate(
        "line => { const p = line.getPointAtLength(line.getTotalLength() / 2)"
        ".matrixTransform(line.getScreenCTM()); return [p.x, p.y]; }",
        demo.page.query_selector(f".hit[data-edge='{number}']"),
    )
    demo.page.mouse.move(*place)
    demo.until("document.querySelector('#edge-ends')")
    assert demo.texts("#edge-ends h3") == [edge.target, edge.source]
    assert f"{edge.source} drives {edge.target}" in demo.texts("#edge-ends .arrow")[0]
    assert demo.edges("#graph .edge.near") == [(edge.source, edge.target)]
    assert demo.all("#tip").is_visible()


def test_clicks_walk_along_the_edges_and_back(demo: Visit, digits: Atlas) -> None:
    demo.show("#class=8")
    graph = digits.attribution_graph(8)
    first = next(edge for edge in graph.edges if edge.source.startswith("conv1/"))
    second = next(edge for edge in graph.edges if edge.source == first.target)
    demo.click(f"[data-neuron='{first.source}'] .frame", force=True)
    assert demo.state()["neuron"] == first.source
    assert demo.each(".node.chosen", "one.dataset.neuron") == [first.source]
    above = [edge.target for edge in graph.edges if edge.source == first.source]
    assert demo.each("[data-direction=upwards] .step", "one.dataset.step") == above[:12]
    demo.click(f"[data-direction=upwards] [data-step='{first.target}']")
    demo.click(f"[data-direction=upwards] [data-step='{second.target}']")
    assert demo.state()["path"] == [first.source, first.target]
    assert demo.state()["neuron"] == second.target
    walked = set(demo.edges("#graph .edge.walked"))
    assert walked == {(first.source, first.target), (second.source, second.target)}
    below = [edge.source for edge in graph.edges if edge.target == second.target]
    assert demo.each("[data-direction=downwards] .step", "one.dataset.step") == below[:12]
    demo.click(f"#path [data-step='{first.target}']")
    assert (demo.state()["neuron"], demo.state()["path"]) == (first.target, [first.source])
    demo.click("#neuron-close")
    assert demo.state()["neuron"] is None
    assert demo.all("#class-pane").is_visible()


def test_a_neuron_leads_to_the_classes_it_matters_to(demo: Visit, digits: Atlas) -> None:
    demo.show("#class=8")
    neuron = digits.attribution_graph(8).neurons[0].name
    demo.click(f"[data-neuron='{neuron}'] .frame", force=True)
    classes = [found for found in digits.neuron(neuron).classes if found.selected]
    assert demo.texts("#neuron-classes .chip") == [found.name for found in classes]
    other = next(found for found in classes if found.index != 8)
    demo.click(f"#neuron-classes [data-goto='{other.index}']")
    assert demo.texts("#class-title") == [other.name]
    assert demo.state()["neuron"] == neuron
    assert demo.each(".node.chosen", "one.dataset.neuron") == [neuron]


def test_weak_influences_can_be_hidden(demo: Visit, digits: Atlas) -> None:
    demo.show("#class=8")
    graph = digits.attribution_graph(8)
    most = max(edge.count for edge in graph.edges)
    demo.page.fill("#least", "0.4")
    demo.settle()
    strong = {(edge.source, edge.target) for edge in graph.edges if edge.count / most >= 0.4}
    assert set(demo.edges()) == strong
    assert 0 < len(strong) < len(graph.edges)
    assert f"{len(strong)} of {len(graph.edges)}" in demo.texts("#least-value")[0]
    assert demo.link() == "#class=8&least=0.4"
    demo.page.dblclick("#least")
    demo.settle()
    assert len(demo.edges()) == len(graph.edges)


def test_width_and_height_give_room(demo: Visit) -> None:
    demo.show("#class=8")
    place = "(({x, y}) => [x, y])(one.getBoundingClientRect())"

    def extent() -> tuple[float, float]:
        places = demo.each("#graph .node .frame", place)
        return tuple(max(at) - min(at) for at in zip(*places, strict=True))  # type: ignore[return-value]

    usual = extent()
    demo.page.fill("#width", "1.5")
    demo.settle()
    wide = extent()
    assert wide[0] == pytest.approx(1.5 * usual[0], rel=0.15)
    assert wide[1] == pytest.approx(usual[1], rel=0.1)
    demo.page.fill("#height", "2")
    demo.settle()
    assert extent()[1] == pytest.approx(2 * usual[1], rel=0.15)


def test_the_graph_zooms_and_moves(demo: Visit) -> None:
    demo.show("#class=8")
    frame = demo.all("#graph .node .frame").first

    def box() -> tuple[float, ...]:
        found = frame.bounding_box()
        assert found is not None
        return found["x"], found["y"], found["width"]

    usual = box()
    demo.page.click("#zoom-in")
    assert box()[2] == pytest.approx(1.3 * usual[2], rel=0.02)
    demo.page.click("#zoom-out")
    demo.page.click("#zoom-out")
    assert box()[2] == pytest.approx(usual[2] / 1.3, rel=0.02)
    demo.page.click("#zoom-fit")
    assert box() == pytest.approx(usual, abs=0.5)
    canvas = demo.all("#graph").bounding_box()
    assert canvas is not None
    corner = (canvas["x"] + canvas["width"] - 40, canvas["y"] + 12)
    demo.page.mouse.move(*corner)
    demo.page.mouse.wheel(0, -200)
    assert box()[2] > 1.2 * usual[2]
    zoomed = box()
    demo.page.mouse.down()
    demo.page.mouse.move(corner[0] - 60, corner[1] + 30, steps=4)
    demo.page.mouse.up()
    moved = box()
    assert (moved[0] - zoomed[0], moved[1] - zoomed[1]) == pytest.approx((-60, 30), abs=1)
    assert demo.state()["neuron"] is None


def test_no_neuron_lies_under_the_buttons(thousand: Visit) -> None:
    thousand.show("#class=15")
    thousand.page.click("#zoom-fit")
    bounds = "(b => [b.x, b.y, b.right, b.bottom])(one.getBoundingClientRect())"
    [(left, top, right, bottom)] = thousand.each("#graph-canvas .zoom", bounds)
    frames = thousand.each("#graph .node .frame", bounds)
    assert len(frames) == 60
    for left_, top_, right_, bottom_ in frames:
        assert right_ <= left or left_ >= right or bottom_ <= top or top_ >= bottom


def test_the_table_says_what_the_picture_shows(demo: Visit, digits: Atlas) -> None:
    demo.show("#class=8")
    graph = digits.attribution_graph(8)
    demo.page.click("#table summary")
    demo.until("document.querySelector('#neurons-table')")
    demo.settle()
    assert demo.texts("#neurons-table tbody th") == [neuron.name for neuron in graph.neurons]
    ranks = demo.texts("#neurons-table tbody td:nth-child(2)")
    assert ranks == [str(neuron.rank) for neuron in graph.neurons]
    counts = demo.texts("#neurons-table tbody td:nth-child(3)")
    assert [int(text.split()[0]) for text in counts] == [neuron.count for neuron in graph.neurons]
    edges = demo.each("#edges-table tbody tr", "[...one.cells].map(cell => cell.textContent)")
    assert [(source, target, int(count.split()[0])) for source, target, count in edges] == [
        (edge.source, edge.target, edge.count) for edge in graph.edges
    ]
    demo.page.fill("#least", "0.4")
    demo.settle()
    assert len(demo.texts("#edges-table tbody tr")) == len(demo.edges()) < len(edges)
    demo.click(f"#neurons-table [data-step='{graph.neurons[1].name}']")
    assert demo.state()["neuron"] == graph.neurons[1].name


@pytest.mark.parametrize("state", ["#class=8", "#class=8&with=3,5&least=0.2"])
def test_the_picture_can_be_saved(demo: Visit, digits: Atlas, state: str) -> None:
    demo.show(state)
    neurons, edges = demo.neurons(), demo.edges()
    with demo.page.expect_download() as begun:
        demo.page.click("#save-svg")
    root = ElementTree.fromstring(begun.value.path().read_bytes())
    assert root.tag == f"{SVG}svg"
    assert begun.value.suggested_filename.endswith(".svg")
    images = root.findall(f".//{SVG}image")
    assert len(images) == len(neurons)
    for image in images:
        uri = image.get("href") or image.get("{http://www.w3.org/1999/xlink}href")
        assert str(uri).startswith("data:image/png;base64,")
    lines = [line for line in root.iter(f"{SVG}path") if line.get("data-source")]
    assert {(line.get("data-source"), line.get("data-target")) for line in lines} == set(edges)
    assert all((line.get("stroke") or "").startswith("#") for line in lines)
    words = {text.text for text in root.iter(f"{SVG}text")}
    assert {layer.name for layer in digits.layers} < words
    assert not list(root.iter(f"{SVG}script"))
    with demo.page.expect_download() as begun:
        demo.page.click("#save-png")
    with Image.open(io.BytesIO(begun.value.path().read_bytes())) as picture:
        assert picture.format == "PNG"
        assert picture.width == min(2 * float(root.get("width") or 0), 8000)
        assert picture.height == min(2 * float(root.get("height") or 0), 8000)
        colours = picture.convert("RGB").getcolors(1 << 24)
    assert colours is not None
    found = {colour for _, colour in colours}
    assert tuple(int(appearance.CLASSES[0][at : at + 2], 16) for at in (1, 3, 5)) in found
    assert len(found) > 40


def test_examples_can_be_hidden_before_a_screenshot(demo: Visit, digits: Atlas) -> None:
    neuron = digits.attribution_graph(8).neurons[0].name
    demo.show(f"#class=8&neuron={neuron}")
    assert len(demo.texts("#examples-of .tile")) == 10
    demo.page.uncheck("#examples")
    demo.settle()
    assert demo.texts("#examples-of") == []
    assert len(demo.texts("#diverse .tile")) == 2
    text = demo.page.content()
    assert digits.examples(neuron)[0].path not in text
    demo.show(f"#class=8&neuron={neuron}&examples=0")
    assert demo.texts("#examples-of") == []


# Links, keys, readers, screens


def test_a_view_can_be_sent_as_a_link(demo: Visit, visit: Open, demo_pages: Path) -> None:
    demo.show("#class=8")
    demo.click("#classes [data-class='3'] .with")
    neuron = demo.neurons("#graph .node.of-shared")[0]
    demo.click(f"[data-neuron='{neuron}'] .frame", force=True)
    demo.page.fill("#least", "0.2")
    demo.page.select_option("#layer", "conv2")
    demo.page.fill("#find", "t")
    demo.click("#sorts [data-sort=name]")
    demo.page.click("#theme")
    demo.settle()
    other = visit(demo_pages, demo.link())
    assert other.state() == demo.state()
    assert other.neurons() == demo.neurons()
    assert other.edges() == demo.edges()
    assert other.classes() == demo.classes()
    assert other.texts("#neuron-name") == [neuron]
    assert other.page.evaluate("document.documentElement.dataset.theme") == "dark"


@pytest.mark.parametrize(
    "state",
    ["#class=99999", "#class=x&least=nan&width=-4", "#neuron=none/1&with=77&layer=nothing",
     "#class=3&with=3,x,5,5,77,4,1,2",
     "#%", "#class=3&neuron=%3Cimg%20src=x%3E&path=a,b"],
)  # fmt: skip
def test_a_broken_link_shows_something_all_the_same(demo: Visit, state: str) -> None:
    demo.show(state)
    if "99999" in state:
        assert "99999" in demo.texts("#graph-empty")[0]
        demo.click("#classes [data-class='3'] .choose")
    assert demo.neurons()
    assert demo.page.locator("img[src=x]").count() == 0


def test_everything_can_be_done_with_keys(demo: Visit, digits: Atlas) -> None:
    demo.show("#class=8")
    demo.press("/")
    demo.page.keyboard.type("one")
    demo.press("Enter")
    assert demo.texts("#class-title") == ["one"]
    demo.page.fill("#find", "")
    demo.page.focus("#find")
    demo.press("ArrowDown", "End", "Enter")
    assert demo.texts("#class-title") == ["nine"]
    demo.page.keyboard.press("Tab")
    assert demo.page.evaluate("document.activeElement.classList.contains('pin')")
    demo.press("Enter")
    assert demo.state()["pin"] == 9
    demo.page.focus("#graph .node[tabindex='0']")
    first = demo.page.evaluate("document.activeElement.dataset.neuron")
    assert demo.texts("#neuron-name") == [first]
    graph = digits.attribution_graph(9)
    assert first == graph.neurons[0].name
    demo.press("Enter")
    assert demo.state()["neuron"] == first
    up = next((edge.target for edge in graph.edges if edge.source == first), None)
    down = next((edge.source for edge in graph.edges if edge.target == first), None)
    demo.press("ArrowUp" if up else "ArrowDown")
    assert demo.page.evaluate("document.activeElement.dataset.neuron") == up or down
    demo.press(" ")
    assert demo.state()["path"] == [first]
    demo.press("Escape")
    assert demo.state()["neuron"] is None
    side = demo.page.evaluate("document.activeElement.dataset.neuron")
    demo.press("ArrowRight", "ArrowLeft", "ArrowLeft", "+", "-", "0")
    assert (
        demo.page.evaluate("document.activeElement.dataset.neuron").rpartition("/")[0]
        == (side.rpartition("/")[0])
    )
    demo.embedded()
    demo.page.focus(".point[tabindex='0']")
    demo.press("ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight")
    chosen = demo.page.evaluate("document.activeElement.dataset.class")
    demo.press("Enter")
    assert demo.state()["class"] == int(chosen)
    demo.page.focus("#least")
    demo.press("ArrowRight", "ArrowRight")
    assert demo.state()["least"] == pytest.approx(0.02)
    demo.page.focus("#skip")
    demo.press("Enter")
    assert demo.page.evaluate("document.activeElement.id") == "main"


def test_tab_reaches_every_control_in_some_steps(demo: Visit) -> None:
    """No trap, no detour: the list, the points and the neurons are one stop each."""
    demo.open("#class=8")
    demo.embedded()
    reached = set()
    for _ in range(90):
        demo.page.keyboard.press("Tab")
        found = demo.page.evaluate(
            "(e => e === document.body ? null : e.id || e.dataset.sort || e.dataset.neuron "
            "|| (e.closest('.class') ? 'row' : e.dataset.class ? 'point' : e.className || e.tagName"
            "))(document.activeElement)"
        )
        if found is None:
            break
        reached.add(str(found))
    assert found is None
    assert {"skip", "find", "row", "point", "layer", "with", "least", "width", "height", "save-svg",
            "save-png", "zoom-in", "zoom-out", "zoom-fit", "theme", "examples", "highest",
            "embedding-large"} < reached  # fmt: skip
    assert sum("/" in name for name in reached) == 1


def test_what_a_screen_reader_meets_has_a_name(demo: Visit, digits: Atlas) -> None:
    neuron = digits.attribution_graph(8).neurons[0].name
    demo.show(f"#class=8&with=3&neuron={neuron}&table=1")
    demo.embedded()
    session = demo.page.context.new_cdp_session(demo.page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "link", "checkbox", "slider", "combobox", "searchbox", "textbox", "option",
             "listbox", "image", "img", "table", "main", "complementary", "navigation", "group",
             "region", "heading"}  # fmt: skip
    found: dict[str, list[str]] = {}
    for node in nodes:
        role = node.get("role", {}).get("value")
        if role in roles and not node.get("ignored"):
            found.setdefault(role, []).append(node.get("name", {}).get("value", ""))
    nameless = {role for role, names in found.items() if not all(name.strip() for name in names)}
    assert nameless <= {"group", "main"}
    buttons = found["button"]
    assert [name for name in buttons if name.startswith(f"Neuron {neuron}.")]
    for name in ("Zoom in", "Fit to view", "Light or dark", "SVG", "Back to the class"):
        assert name in buttons
    for name in ("Least influence", "Width", "Height"):
        assert any(label.lower().startswith(name.lower()) for label in found["slider"])
    assert any("Neurons:" in name for name in found["table"])
    assert demo.page.locator("#live").get_attribute("aria-live") == "polite"
    assert demo.page.get_attribute("html", "lang") == "en"
    assert "eight" in str(demo.page.get_attribute("#graph", "aria-label"))


@pytest.mark.parametrize(
    ("name", "width", "height", "scheme"),
    [
        ("lite", 1280, 720, "light"),
        ("thousand", 1280, 720, "dark"),
        ("thousand", 390, 844, "light"),
        ("lite", 390, 844, "dark"),
        ("demo", 820, 1180, "light"),
        ("published", 1920, 1080, "dark"),
    ],
)
def test_every_screen_shows_the_parts_beside_each_other(
    name: str, width: int, height: int, scheme: str, visit: Open, request: pytest.FixtureRequest
) -> None:
    page = visit(
        request.getfixturevalue(f"{name}_pages"),
        "#class=40" if name == "thousand" else "",
        width,
        height,
        color_scheme=scheme,
        has_touch=width < 600,
        is_mobile=width < 600,
    )
    views = ["graph", "embedding", "classes"] if width < 600 else ["graph"]
    for view in views:
        if width < 600:
            page.click(f"#tabs [data-view={view}]")
        fits(page, width)
        ground = page.page.evaluate("getComputedStyle(document.body).backgroundColor")
        light = sum(map(int, re.findall(r"\d+", ground)[:3])) > 3 * 128
        assert light == (scheme == "light")
        assert legible(page) == []
    if width < 600:
        index = page.classes()[2]
        page.page.tap(f"#classes [data-class='{index}'] .choose")
        page.settle()
        assert page.state()["class"] == index
        assert page.all("#graph").is_visible()
        neuron = page.all("#graph .node .frame").first
        neuron.tap()
        page.settle()
        assert page.state()["neuron"]
        assert page.texts("#neuron-name")


def fits(page: Visit, width: int) -> None:
    """No part hangs out of the window or lies on another."""
    wide = page.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide == [width, width]
    parts = page.each(
        "#top, #tabs, #views > *", "(b => [one.id, b.x, b.y, b.right, b.bottom])"
        "(one.getBoundingClientRect())",
    )  # fmt: skip
    assert len(parts) >= 2
    for at, (name, left, top, right, bottom) in enumerate(parts):
        assert left >= -0.5, name
        assert right <= width + 0.5, name
        for other, left_, top_, right_, bottom_ in parts[at + 1 :]:
            apart = (
                right <= left_ + 1 or right_ <= left + 1 or bottom <= top_ + 1 or bottom_ <= top + 1
            )
            assert apart, (name, other)
    hanging = page.each(
        "button, select, input, summary",
        "(b => one.closest('#classes, #details, #neuron-pane, #table-body, #skip') || b.right <="
        " innerWidth + 0.5 && b.x >= -0.5 || one.matches('#skip, .skip') ? null : one.id || "
        "one.textContent)(one.getBoundingClientRect())",
    )
    assert [name for name in hanging if name] == []


def legible(page: Visit) -> list[Any]:
    """Texts whose contrast with what is behind is below 4.5 (WCAG 2.2, 1.4.3)."""
    found: list[Any] = page.page.evaluate(
        """() => {
      const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
      const rgb = (colour) => {
        canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
      };
      const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
        .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
      const behind = (one) => {
        for (let up = one; up; up = up.parentElement) {
          const colour = rgb(getComputedStyle(up).backgroundColor);
          if (colour[3] === 255) return colour;
        }
        return [255, 255, 255];
      };
      const faint = [];
      for (const one of document.querySelectorAll("body *")) {
        const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!own || !one.checkVisibility() || one.closest("svg, :disabled")) continue;
        const style = getComputedStyle(one);
        const [a, b] = [light(rgb(style.color)), light(behind(one))].sort((x, y) => y - x);
        const contrast = (a + 0.05) / (b + 0.05);
        if (contrast < 4.5) faint.push([one.textContent.slice(0, 40), contrast.toFixed(2)]);
      }
      return faint;
    }"""
    )
    return found


def test_light_or_dark_can_be_chosen(demo: Visit) -> None:
    demo.show("#class=3")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = demo.page.evaluate(ground)
    demo.click("#theme")
    dark = demo.page.evaluate(ground)
    assert dark != light
    assert demo.state()["theme"] == "dark"
    demo.open("#class=3&theme=dark")
    assert demo.page.evaluate(ground) == dark
    assert legible(demo) == []
    demo.click("#theme")
    assert demo.page.evaluate(ground) == light


# Names

_SHORT = 30
"""Letters of a name that a sentence has at least; long names are cut short there."""


@pytest.mark.parametrize("index", [*made.HOSTILE, *made.LONG])
def test_a_name_is_text_whatever_it_holds(thousand: Visit, many: Atlas, index: int) -> None:
    name = many.find(index).name
    thousand.page.evaluate(f"summit.choose({index})")
    thousand.settle()
    assert thousand.texts("#class-title") == [name]
    row = f"#classes [data-class='{index}']"
    assert thousand.texts(f"{row} .name") == [name]
    assert thousand.texts(".facts-of h3") == [name]
    assert name[:_SHORT] in str(thousand.page.get_attribute("#graph", "aria-label"))
    assert thousand.page.title() != "owned"
    assert thousand.page.evaluate("document.images.length + document.scripts.length") == (
        thousand.page.evaluate("document.querySelectorAll('script[src]').length")
    )
    assert thousand.page.evaluate(
        "[...document.querySelectorAll('body *')].every(one => !one.getAttributeNames()"
        ".some(name => name.startsWith('on')))"
    )


def test_a_comparison_of_hostile_names_is_saved_as_text(thousand: Visit) -> None:
    thousand.show("#class=20&with=21&table=1")
    with thousand.page.expect_download() as begun:
        thousand.page.click("#save-svg")
    root = ElementTree.fromstring(begun.value.path().read_bytes())
    words = " ".join(str(text.text) for text in root.iter(f"{SVG}text"))
    assert made.HOSTILE[20][:_SHORT] in words
    assert made.HOSTILE[21][:_SHORT] in words
    assert "/" not in begun.value.suggested_filename
    assert not list(root.iter(f"{SVG}script"))
    assert made.HOSTILE[21] in thousand.texts("#neurons-table thead")[0]


def test_classes_without_a_graph_say_why(thousand: Visit) -> None:
    thousand.show(f"#class={made.WITHOUT_GRAPH}")
    assert "has no attribution graph" in thousand.texts("#graph-empty")[0]
    assert thousand.neurons() == []
    assert "1,300 images" in thousand.texts("#class-pane")[0]
    thousand.page.evaluate(f"summit.choose({made.WITHOUT_IMAGE})")
    thousand.settle()
    assert "no image" in thousand.texts("#graph-empty")[0]
    thousand.click("#classes [data-class='3'] .choose")
    assert len(thousand.neurons()) == 60


def test_a_thousand_rows_are_searched_sorted_and_scrolled(thousand: Visit, many: Atlas) -> None:
    thousand.show("#class=15")
    thousand.until("document.querySelectorAll('#classes .class').length === 1000")
    assert thousand.classes() == made.indices()
    thousand.page.fill("#find", "northern")
    found = [record.index for record in many.classes if "northern" in record.name]
    assert thousand.classes() == found
    thousand.page.fill("#find", "n00000512")
    assert thousand.classes() == [512]
    thousand.page.fill("#find", "")
    thousand.click("#sorts [data-sort=similar]")
    thousand.until("document.querySelectorAll('#classes .class').length === 1000")
    near = [similar.index for similar in many.similar(15, limit=50)]
    assert thousand.classes()[:51] == [15, *near]
    thousand.click("#sorts [data-sort=lowest]")
    thousand.until("document.querySelectorAll('#classes .class').length === 1000")
    known = [record for record in many.classes if record.top1 is not None]
    lowest = sorted(known, key=lambda record: (record.top1 or 0, record.index))
    assert thousand.classes() == [*(record.index for record in lowest), made.WITHOUT_IMAGE]
    assert thousand.page.evaluate("document.querySelectorAll('#with option').length") == 999


def test_published_graphs_say_what_they_lack(watched: Open, published_pages: Path) -> None:
    page = watched(published_pages, "#class=270")
    assert page.texts("#class-title") == ["white wolf"]
    sorts = page.each("#sorts button", "one.dataset.sort")
    assert sorts == ["index", "name"]
    assert not page.all("#examples-label").is_visible()
    name = page.neurons()[0]
    page.click(f"[data-neuron='{name}'] .frame", force=True)
    says = page.texts("#neuron-pane")[0]
    assert "No feature visualisations" in says
    assert "No dataset examples" in says
    assert re.search(r"active in [\d,]+ image", says)
    assert "NaN" not in page.page.inner_text("body")
    assert "null" not in page.page.inner_text("body")


def test_a_class_that_does_not_load_can_be_tried_again(
    browser: Browser, demo_pages: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(demo_pages, tmp_path / "pages"))
    (folder / "data" / "class-5.js").rename(tmp_path / "class-5.js")
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{folder.as_uri()}/index.html#class=5")
    page.wait_for_selector("#graph-empty")
    assert "class-5.js does not load" in page.inner_text("#graph-empty")
    (tmp_path / "class-5.js").rename(folder / "data" / "class-5.js")
    page.click("#retry")
    page.wait_for_selector("#graph .node")
    (folder / "data" / "overview.js").unlink()
    page.reload()
    page.wait_for_selector("#graph-empty")
    assert "overview.js does not load" in page.inner_text("#graph-empty")
    context.close()
