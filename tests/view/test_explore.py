"""List, map and attribution graph follow each other, and what an atlas lacks is said."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from traitlets import TraitError
from view import made
from view.test_widget import HARMLESS, click, nodes, trouble

from summit_graph import Atlas
from summit_graph.atlas.generation import locate
from summit_graph.errors import AtlasError
from summit_graph.view import appearance
from summit_graph.view.explore import MOST_POINTS, Explorer, explore


@pytest.fixture(scope="module")
def atlas(pictured_atlas: Path) -> Iterator[Atlas]:
    with Atlas.open(pictured_atlas) as opened:
        yield opened


@pytest.fixture
def digits(atlas: Atlas) -> Explorer:
    return explore(atlas, "three")


def listed(explorer: Explorer) -> list[int]:
    return [index for _, index in explorer._list.options]


def entry(explorer: Explorer, index: int) -> str:
    return next(text for text, value in explorer._list.options if value == index)


def points(explorer: Explorer) -> dict[int, Any]:
    (canvas,) = explorer._stage.children
    return {node.data["number"]: node for node in canvas.graph.nodes}


def point(explorer: Explorer, event: str, index: int) -> None:
    """An event of a point of the map, as it comes from the browser."""
    (canvas,) = explorer._stage.children
    data = {"data": {"number": index}}
    canvas._handle_custom_msg({"event": event, "widget": "node", "data": data}, [])


def colours(explorer: Explorer) -> dict[int, str]:
    """The colour of each point that stands out."""
    (canvas,) = explorer._stage.children
    found = {}
    for rule in canvas.cytoscape_style:
        at = re.fullmatch(r"node\[number = (\d+)\]", rule["selector"])
        if at and "background-color" in rule["style"]:
            found[int(at[1])] = rule["style"]["background-color"]
    return found


def said(explorer: Explorer) -> str:
    return unescape(re.sub(r"<[^>]*>", " ", explorer._said.value))


def shows(explorer: Explorer, atlas: Atlas, index: int) -> bool:
    """Whether all three views are at a class."""
    record = atlas.find(index)
    graph = {neuron.name for neuron in atlas.attribution_graph(index).neurons}
    return (
        explorer.class_index == index
        and record.name in unescape(explorer._card.value)
        and set(nodes(explorer.attribution)) == graph
        and colours(explorer)[index] == appearance.CLASSES[0]
        and explorer._list.value in (index, None)
    )


# Choosing a class -----------------------------------------------------------------------------


def test_the_class_with_most_images_comes_first(atlas: Atlas) -> None:
    explorer = explore(atlas)
    most = max(record.images or 0 for record in atlas.classes)
    first = atlas.find(explorer.class_index)
    assert first.images == most
    assert repr(explorer) == f"Explorer(10 classes, at {first.name!r})"
    assert shows(explorer, atlas, explorer.class_index)


def test_everything_follows_the_list_the_map_and_the_graph(digits: Explorer, atlas: Atlas) -> None:
    assert shows(digits, atlas, 3)
    digits._list.value = 5
    assert shows(digits, atlas, 5)
    assert digits._list.value == 5
    point(digits, "click", 8)
    assert shows(digits, atlas, 8)
    assert digits._list.value == 8
    neuron = next(
        name
        for name in nodes(digits.attribution)
        if any(one.selected and one.index != 8 for one in atlas.neuron(name).classes)
    )
    click(digits.attribution, neuron)
    other = digits.attribution._elsewhere.options[1][1]
    digits.attribution._elsewhere.value = other
    assert shows(digits, atlas, other)
    assert digits.attribution.neuron == neuron
    digits.choose("zero")
    assert shows(digits, atlas, 0)
    assert not trouble(digits)


def test_a_class_that_is_not_there(digits: Explorer, atlas: Atlas) -> None:
    digits.class_index = 44
    assert "no class has the index 44" in trouble(digits)
    assert shows(digits, atlas, 3)
    digits.class_index = 4
    assert not trouble(digits)


def taken(explorer: Explorer) -> list[str]:
    """What the buttons that take a class away say."""
    return [button.description for button in explorer._taken.children]


def test_comparing(digits: Explorer, atlas: Atlas) -> None:
    assert digits.compared == ()
    assert taken(digits) == []
    digits._other.value = 8
    assert digits.compared == (8,)
    compared = atlas.compare(3, 8)
    drawn = nodes(digits.attribution)
    assert len(drawn) == sum(map(len, (compared.shared, compared.only_first, compared.only_second)))
    assert (colours(digits)[3], colours(digits)[8]) == appearance.CLASSES[:2]
    digits._list.value = 5
    assert digits.attribution._drawn.names == ["five", "eight"]
    digits._list.value = 8
    assert digits.compared == ()
    assert taken(digits) == []
    assert shows(digits, atlas, 8)
    digits.compared = (8,)
    assert digits.compared == ()
    assert shows(digits, atlas, 8)
    assert not trouble(digits)


def test_classes_are_added_and_taken_away(digits: Explorer) -> None:
    for index in (8, 5, 1):
        assert not digits._other.disabled
        digits._other.value = index
        assert digits._other.value == -1
    assert digits.compared == (8, 5, 1)
    assert digits.attribution._drawn.names == ["three", "eight", "five", "one"]
    lit = colours(digits)
    assert [lit[index] for index in (3, 8, 5, 1)] == list(appearance.CLASSES)
    assert taken(digits) == ["✕ eight", "✕ five", "✕ one"]
    for button, colour in zip(digits._taken.children, appearance.CLASSES[1:], strict=True):
        assert colour in button.layout.border_left
    assert digits._other.disabled
    assert digits._other.description == "Four at most"
    assert "take one away" in digits._other.tooltip
    assert digits._taken.children[1].tooltip == "Take away ‘five’"
    digits._taken.children[1].click()
    assert digits.compared == (8, 1)
    assert taken(digits) == ["✕ eight", "✕ one"]
    assert digits._taken.children[1].tooltip == "Take away ‘one’"
    assert digits.attribution._drawn.names == ["three", "eight", "one"]
    assert colours(digits)[1] == appearance.CLASSES[2]
    assert not digits._other.disabled
    assert digits._other.description == "Compare with"
    digits._other.value = 1
    assert digits.compared == (8, 1)
    digits._list.value = 8
    assert digits.compared == (1,)
    assert digits.attribution._drawn.names == ["eight", "one"]
    assert taken(digits) == ["✕ one"]
    digits._taken.children[0].click()
    assert digits.compared == ()
    assert not trouble(digits)


@pytest.mark.parametrize(
    ("compared", "told"),
    [
        ((1, 2, 4, 5), "5 classes are too many for one picture"),
        ((1, 1), "'one' cannot be compared with itself"),
        ((1, 44), "no class has the index 44"),
    ],
)
def test_what_cannot_be_compared(digits: Explorer, compared: tuple[int, ...], told: str) -> None:
    digits.compared = (8,)
    digits.compared = compared
    assert told in trouble(digits)
    assert digits.compared == (8,)
    assert taken(digits) == ["✕ eight"]
    assert digits.attribution._drawn.names == ["three", "eight"]
    assert colours(digits)[8] == appearance.CLASSES[1]
    digits.compared = [8, 5]
    assert not trouble(digits)
    assert digits.compared == (8, 5)
    with pytest.raises(TraitError, match="indices of classes"):
        digits.compared = ("eight",)


def test_another_class_from_the_graph_stands_alone(digits: Explorer, atlas: Atlas) -> None:
    digits.compared = (8, 5)
    for name in nodes(digits.attribution):
        click(digits.attribution, name)
        if len(digits.attribution._elsewhere.options) > 1:
            break
    other = digits.attribution._elsewhere.options[1][1]
    digits.attribution._elsewhere.value = other
    assert digits.compared == ()
    assert taken(digits) == []
    assert shows(digits, atlas, other)


# The sidebar ----------------------------------------------------------------------------------


def test_search(digits: Explorer, atlas: Atlas) -> None:
    digits._search.value = "E"
    expected = [record.name for record in atlas.classes if "e" in record.name]
    assert [atlas.find(index).name for index in listed(digits)] == sorted(expected)
    assert digits._list.value == 3
    digits._search.value = "six"
    assert listed(digits) == [6]
    assert digits._list.value is None
    assert shows(digits, atlas, 3)
    digits._search.value = "<b>"
    assert listed(digits) == []
    assert unescape(digits._found.value).endswith("No class fits '<b>'.</p>")
    digits._search.value = ""
    assert len(listed(digits)) == 10
    assert digits._list.value == 3
    assert digits._found.value == ""


def test_sorting(digits: Explorer, atlas: Atlas) -> None:
    records = {record.index: record for record in atlas.classes}
    names = [records[index].name for index in listed(digits)]
    assert names == sorted(names)
    top1 = {index: record.top1 or 0.0 for index, record in records.items()}
    assert len(set(top1.values())) > 2
    digits._sort.value = "best"
    assert [top1[index] for index in listed(digits)] == sorted(top1.values(), reverse=True)
    digits._sort.value = "worst"
    assert [top1[index] for index in listed(digits)] == sorted(top1.values())
    digits._sort.value = "similar"
    near = [one.index for one in atlas.similar(3, limit=100)]
    assert listed(digits) == [3, *near]
    first = atlas.similar(3)[0]
    assert f"· {first.cosine:.2f} ·" in entry(digits, first.index)
    digits._list.value = 7
    assert listed(digits) == [7, *(one.index for one in atlas.similar(7, limit=100))]


def test_what_is_said_of_a_class(digits: Explorer, atlas: Atlas) -> None:
    record = max(atlas.classes, key=lambda one: -(one.top1 or 0))
    assert record.top1 is not None
    assert record.probability is not None
    assert entry(digits, record.index).startswith(f"{record.name} · {record.top1:.0%} · ")
    bars = entry(digits, record.index)[-10:]
    assert bars.index("█") == record.probability.index(max(record.probability))
    assert {bar for bar, count in zip(bars, record.probability, strict=True) if not count} <= {"▁"}
    digits.choose(record.index)
    card = unescape(digits._card.value)
    assert f"{record.images} images, top-1 {record.top1:.0%}, top-5 " in card
    assert f"{record.neurons} neurons and {record.edges} influences" in card
    assert f"from 0 to 1: {', '.join(map(str, record.probability))}" in card
    taken = atlas.confusions(record.index)[0]
    assert taken.share is not None
    assert f"Taken for {taken.name} ({taken.share:.0%})" in card


# The map --------------------------------------------------------------------------------------


def test_points_stand_as_the_embedding_says(digits: Explorer, atlas: Atlas) -> None:
    for layer in ("conv4", "conv1"):
        digits._layers.value = layer
        assert digits.layer == layer
        known = {one.index: one for one in atlas.embedding(layer)}
        (canvas,) = digits._stage.children
        if layer == "conv4":
            shown = {index: node.position for index, node in points(digits).items()}
        else:
            moved = canvas.cytoscape_layout["positions"]
            shown = {index: moved[f"c{index}"] for index in known}
        assert set(shown) == set(known)
        scales = set()
        for one in known.values():
            for other in known.values():
                for axis, sign in (("x", 1), ("y", -1)):
                    apart = getattr(one, axis) - getattr(other, axis)
                    if abs(apart) > 0.1:
                        drawn = shown[one.index][axis] - shown[other.index][axis]
                        scales.add(round(sign * drawn / apart, 1))
        assert max(scales) - min(scales) <= 0.2
        assert min(scales) > 0


def test_the_nearest_stand_out_layer_by_layer(digits: Explorer, atlas: Atlas) -> None:
    for layer in ("conv4", "conv1"):
        digits.layer = layer
        near = atlas.similar("three", layer, 6)
        assert set(colours(digits)) == {3, *(one.index for one in near)}
        assert said(digits).strip().startswith(f"Most like three in {layer}: {near[0].name} (")
    point(digits, "mouseover", 6)
    assert "six, " in digits._pointed.value
    point(digits, "mouseout", 6)
    assert digits._pointed.value == ""


def test_of_many_classes_the_nearest_are_on_the_map(thousand_atlas: Path) -> None:
    with Atlas.open(thousand_atlas) as atlas:
        explorer = explore(atlas, 1)
        assert f"{MOST_POINTS} of 1,000 classes are on the map" in said(explorer)
        last = atlas.layers[-1].name
        places = {one.index: one for one in atlas.embedding(last)}
        here = places[1]
        away = {
            index: (one.x - here.x) ** 2 + (one.y - here.y) ** 2 for index, one in places.items()
        }
        shown = set(points(explorer))
        assert len(shown) == MOST_POINTS
        assert max(away[index] for index in shown) <= min(
            away[index] for index in places if index not in shown
        )
        explorer.layer = atlas.layers[0].name
        assert set(points(explorer)) == shown
        explorer._recentre.click()
        assert set(points(explorer)) != shown
        assert 1 in points(explorer)
        far = next(index for index in places if index not in points(explorer))
        explorer.class_index = far
        assert far in points(explorer)
        assert not trouble(explorer)
        explorer.class_index = made.WITHOUT_IMAGE
        assert "has no place in" in said(explorer)
        explorer.class_index = made.WITHOUT_GRAPH
        assert "no attribution graph" in explorer.attribution._heading.value
        assert not trouble(explorer)


def test_names_are_text(thousand_atlas: Path) -> None:
    with Atlas.open(thousand_atlas) as atlas:
        explorer = explore(atlas, 20)
        for index in (*made.HOSTILE, *made.LONG):
            explorer.class_index = index
            point(explorer, "mouseover", index)
            for one in (explorer._card, explorer._said, explorer._pointed):
                rest = HARMLESS.sub("", one.value)
                assert "<" not in rest
                assert ">" not in rest
            explorer.compared = (1, *(other for other in (20, 21) if other != index))
            assert made.name(index) in unescape(explorer._card.value)
            assert made.name(index) in entry(explorer, index)


# What an atlas lacks --------------------------------------------------------------------------


def test_a_partial_atlas(published_atlas: Path) -> None:
    with Atlas.open(published_atlas) as atlas:
        explorer = explore(atlas, "white wolf")
        (sentence,) = explorer._stage.children
        assert "No map of classes: the " in sentence.value
        assert "published graphs, which do not say" in sentence.value
        assert explorer._layers.layout.display == "none"
        assert [value for _, value in explorer._sort.options] == ["name"]
        assert len(listed(explorer)) == 900
        record = atlas.find("white wolf")
        assert entry(explorer, record.index) == f"white wolf · {record.neurons} neurons"
        explorer.choose("tench")
        explorer.compared = (record.index,)
        compared = atlas.compare("tench", "white wolf")
        assert sum(
            one["border"] == "double" for one in nodes(explorer.attribution).values()
        ) == len(compared.shared)
        assert not trouble(explorer)


def test_without_an_embedding(demo_atlas: Path, tmp_path: Path) -> None:
    copy = tmp_path / "digits.atlas"
    shutil.copytree(demo_atlas, copy, symlinks=True)
    (locate(copy) / "embedding.parquet").unlink()
    with Atlas.open(copy) as atlas:
        explorer = explore(atlas, "three")
        (sentence,) = explorer._stage.children
        assert "No map of classes: " in sentence.value
        explorer.choose("four")
        assert set(nodes(explorer.attribution)) == {
            neuron.name for neuron in atlas.attribution_graph("four").neurons
        }
        assert not trouble(explorer)


def test_an_atlas_that_is_not_ranked(tmp_path: Path) -> None:
    from atlas import made as toy

    path = toy.atlas(tmp_path / "toy", toy.images(20), ranked=False)
    with Atlas.open(path) as atlas, pytest.raises(AtlasError, match="summit-graph rank"):
        explore(atlas)
