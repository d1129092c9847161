"""All classes of an atlas in a notebook: a list, a map and an attribution graph, linked.

1. The sidebar lists the classes: searched by name, sorted by name, top-1 or similarity to the
   chosen one, which is described on top.
2. The map has a point for each class, where the embedding of a layer puts it; the points move when
   another layer is picked, and a click chooses a class.
3. The attribution graph of the chosen class, and of others beside it, is an `AttributionWidget`;
   from a neuron's details one goes on to other classes, and the sidebar and the map follow.

What an atlas does not have is said in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import ipycytoscape
import ipywidgets
import traitlets
from ipywidgets import Layout

from summit_graph.atlas.atlas import Atlas
from summit_graph.atlas.interface import ClassPoint, ClassRecord, Graphs
from summit_graph.errors import AtlasError, SummitGraphError, UnknownClass
from summit_graph.explain.pictures import Pictures
from summit_graph.view import appearance
from summit_graph.view.canvas import close, height_class, height_rule
from summit_graph.view.scene import MOST_CLASSES
from summit_graph.view.widget import AttributionWidget, guarded, paragraph

MOST_POINTS = 300
"""Classes that the map shows at once; of more, the nearest to the chosen one."""

_NEAREST = 6
_NAMED = 40
"""Up to so many classes, all have their names beside their points."""

_MAP = (560.0, 300.0)
_MAP_HEIGHT = 360
_PALE = "#A9BAC7"
_BARS = "▁▂▃▄▅▆▇█"
_NONE = -1

_NAME, _SIMILAR, _BEST, _WORST = "name", "similar", "best", "worst"


def explore(
    graphs: Graphs,
    name: str | int | None = None,
    *,
    pictures: Pictures | Atlas | str | Path | None = None,
) -> Explorer:
    """All classes of an atlas as a widget: a list, a map, and the graph of the chosen class.

    graphs: an atlas or a `GraphDB`. name: the class chosen first; None: the one with the most
    images. pictures: as `attribution_widget` takes them.
    Raises: UnknownClass; AtlasError if the atlas is not ranked or has no class with a graph.
    """
    return Explorer(graphs, name, pictures=pictures)


class Explorer(ipywidgets.VBox):  # type: ignore[misc]
    """The widget that `explore` makes.

    Its traits can be read, set and observed: class_index, the class chosen; compared, the indices
    of up to three classes beside it; layer, that of the map.
    """

    class_index = traitlets.Int()
    compared = traitlets.Tuple()
    layer = traitlets.Unicode("")

    def __init__(
        self,
        graphs: Graphs,
        name: str | int | None = None,
        *,
        pictures: Pictures | Atlas | str | Path | None = None,
    ) -> None:
        self._graphs = graphs
        self._records = {record.index: record for record in graphs.classes}
        start = graphs.find(name) if name is not None else _start(graphs.classes)
        self._busy = False
        self._beside: tuple[int, ...] = ()
        self._cosines: dict[int, float] = {}
        self._map: _Map | None = None

        self._trouble = ipywidgets.HTML()
        self._card = ipywidgets.HTML()
        self._search = ipywidgets.Text(
            placeholder=f"Search {len(self._records):,} classes", layout=Layout(width="auto")
        )
        self._sort = ipywidgets.Dropdown(
            description="Sort",
            options=self._orders(start.index),
            layout=Layout(width="auto"),
            style={"description_width": "auto"},
        )
        self._found = ipywidgets.HTML()
        self._list = ipywidgets.Select(options=[], rows=11, layout=Layout(width="auto"))
        self._other = ipywidgets.Dropdown(
            description="Compare with",
            options=[("choose…", _NONE), *self._by_name()],
            style={"description_width": "auto"},
            layout=Layout(width="auto"),
        )
        self._away = [self._take_away(at) for at in range(MOST_CLASSES - 1)]
        self._taken = ipywidgets.HBox(layout=Layout(flex_flow="row wrap"))
        sidebar = ipywidgets.VBox(
            [
                self._card,
                self._other,
                self._taken,
                self._search,
                self._sort,
                self._found,
                self._list,
            ],
            layout=Layout(flex="0 0 290px", max_width="100%"),
        )
        names = [layer.name for layer in graphs.layers]
        self._layers = ipywidgets.SelectionSlider(
            description="Layer",
            options=names,
            value=names[-1],
            continuous_update=False,
            style={"description_width": "auto"},
            layout=Layout(width="360px"),
        )
        self._recentre = ipywidgets.Button(description="", layout=Layout(width="auto"))
        self._stage = ipywidgets.VBox(layout=Layout(min_width="0"))
        self._said = ipywidgets.HTML()
        self._pointed = ipywidgets.HTML()
        self._place = ipywidgets.VBox(
            [
                ipywidgets.HTML(height_rule(_MAP_HEIGHT)),
                ipywidgets.HBox(
                    [self._layers, self._recentre], layout=Layout(flex_flow="row wrap")
                ),
                self._stage,
                self._pointed,
                self._said,
            ],
            layout=Layout(flex="1 1 420px", min_width="0"),
        )
        self.attribution = AttributionWidget(graphs, start.index, pictures=pictures)
        super().__init__(
            [
                ipywidgets.HBox([sidebar, self._place], layout=Layout(flex_flow="row wrap")),
                self._trouble,
                self.attribution,
            ]
        )
        self._put_beside(())
        self.class_index = start.index
        self.layer = names[-1]
        traitlets.link((self, "layer"), (self._layers, "value"))
        self._watch(self, self._chosen, "class_index")
        self._watch(self, self._compare, "compared")
        self._watch(self, self._moved, "layer")
        self._watch(self._other, self._add, "value")
        self._watch(self._search, self._fill, "value")
        self._watch(self._sort, self._fill, "value")
        self._watch(self._list, self._listed, "value")
        self._watch(self.attribution, self._followed, "class_index")
        self._recentre.on_click(guarded(self._draw_map, self._trouble))
        self._describe()
        self._fill()
        guarded(self._draw_map, self._trouble)(None)

    def __repr__(self) -> str:
        return (
            f"Explorer({len(self._records):,} classes, at {self._records[self.class_index].name!r})"
        )

    def choose(self, name: str | int) -> None:
        """Chooses a class. Raises: UnknownClass."""
        self.class_index = self._graphs.find(name).index

    def _watch(self, widget: Any, act: Callable[[Any], None], trait: str) -> None:
        widget.observe(guarded(act, self._trouble), trait)

    @traitlets.validate("compared")
    def _indices(self, proposal: Any) -> tuple[int, ...]:
        """Refuses what is no index."""
        if not all(isinstance(one, int) for one in proposal["value"]):
            raise traitlets.TraitError(
                f"compared is {proposal['value']!r}: it has to hold the indices of classes."
            )
        return tuple(proposal["value"])

    # What somebody does

    def _chosen(self, _: object = None) -> None:
        """Another class: everything follows."""
        self._trouble.value = ""
        try:
            record = self._graphs.find(self.class_index)
        except UnknownClass:
            self.class_index = self.attribution.class_index
            raise
        self._put_beside(index for index in self.compared if index != record.index)
        self._show()
        self._describe()
        if self._sort.value == _SIMILAR:
            self._fill()
        else:
            self._mark()
        if self._map is not None and record.index not in self._map.points:
            self._draw_map()
        else:
            self._light()

    def _compare(self, _: object = None) -> None:
        """Other classes beside the chosen one; what cannot be shown is taken back."""
        if self._busy:
            return
        self._trouble.value = ""
        wanted = tuple(index for index in self.compared if index != self.class_index)
        before = self._beside
        self._put_beside(wanted)
        try:
            self._show()
        except SummitGraphError:
            self._put_beside(before)
            raise
        self._light()

    def _put_beside(self, indices: Iterable[int]) -> None:
        """Sets what is compared, and the sidebar's controls, without drawing anything."""
        self._busy = True
        try:
            self._beside = self.compared = tuple(indices)
        finally:
            self._busy = False
        names = [self._records[index].name for index in self._beside if index in self._records]
        for button, name in zip(self._away, names, strict=False):
            button.description = f"✕ {_short(name)}"
            button.tooltip = f"Take away ‘{name}’"
        self._taken.children = self._away[: len(names)]
        full = len(names) >= len(self._away)
        self._other.disabled = full
        self._other.description = "Four at most" if full else "Compare with"
        self._other.tooltip = (
            f"A picture shows at most {MOST_CLASSES} classes: take one away to add another."
            if full
            else "Puts another class into the graph"
        )

    def _add(self, _: object = None) -> None:
        """One more class to compare with; the control is ready for the next one then."""
        index = self._other.value
        if index != _NONE:
            self._other.value = _NONE
            if index not in self.compared:
                self.compared = (*self.compared, index)

    def _take_away(self, at: int) -> Any:
        """The button that takes away the class at a place of those compared, in its colour."""

        def act(_: object = None) -> None:
            self.compared = self.compared[:at] + self.compared[at + 1 :]

        colour = appearance.CLASSES[1 + at]
        button = ipywidgets.Button(
            style={"button_color": "transparent"},
            layout=Layout(width="auto", border=f"2px solid {colour}"),
        )
        button.on_click(guarded(act, self._trouble))
        return button

    def _show(self) -> None:
        """The graph of the chosen class and of those beside it."""
        self._busy = True
        try:
            self.attribution.show(self.class_index, self.compared)
        finally:
            self._busy = False

    def _followed(self, _: object = None) -> None:
        """From a neuron's details to another class."""
        if self._busy:
            return
        self._put_beside(())
        neuron = self.attribution.neuron
        self.class_index = self.attribution.class_index
        self.attribution.choose(neuron)

    def _listed(self, _: object = None) -> None:
        if not self._busy and self._list.value is not None:
            self.class_index = self._list.value

    # The sidebar

    def _orders(self, index: int) -> list[tuple[str, str]]:
        """The orders that the atlas can sort by."""
        orders = [("Name", _NAME)]
        try:
            self._graphs.similar(index, limit=1)
        except AtlasError:
            pass
        else:
            orders.append(("Most like the chosen class", _SIMILAR))
        if any(record.top1 is not None for record in self._records.values()):
            orders += [("Top-1, best first", _BEST), ("Top-1, worst first", _WORST)]
        return orders

    def _by_name(self) -> list[tuple[str, int]]:
        records = sorted(self._records.values(), key=_name_order)
        return [(record.name, record.index) for record in records]

    def _fill(self, _: object = None) -> None:
        """The list, searched and sorted."""
        wanted = self._search.value.casefold().strip()
        records = [
            record
            for record in self._records.values()
            if wanted in record.name.casefold() or (record.synset and wanted == record.synset)
        ]
        order = self._sort.value
        self._cosines = {}
        records.sort(key=_name_order)
        if order == _SIMILAR:
            near = self._graphs.similar(self.class_index, limit=len(self._records))
            self._cosines = {one.index: one.cosine for one in near}
            records.sort(
                key=lambda one: (
                    one.index != self.class_index,
                    -self._cosines.get(one.index, float("-inf")),
                )
            )
        elif order in (_BEST, _WORST):
            sign = -1 if order == _BEST else 1
            records.sort(
                key=lambda one: (one.top1 is None, 0.0 if one.top1 is None else sign * one.top1)
            )
        self._found.value = "" if records else paragraph(f"No class fits {self._search.value!r}.")
        self._busy = True
        try:
            self._list.options = [(self._entry(record), record.index) for record in records]
            self._list.value = None
        finally:
            self._busy = False
        self._mark()

    def _entry(self, record: ClassRecord) -> str:
        """A class in the list, as text."""
        said = [record.name]
        if record.index in self._cosines:
            said.append(f"{self._cosines[record.index]:.2f}")
        if record.top1 is not None:
            said.append(f"{record.top1:.0%}")
        if record.probability is not None and any(record.probability):
            said.append(_sparkline(record.probability))
        elif record.top1 is None and record.neurons is not None:
            said.append(f"{record.neurons} neurons")
        return " · ".join(said)

    def _mark(self) -> None:
        """The chosen class in the list, where the search has left it."""
        self._busy = True
        try:
            there = {index for _, index in self._list.options}
            self._list.value = self.class_index if self.class_index in there else None
        finally:
            self._busy = False

    def _describe(self) -> None:
        """The chosen class, pinned on top."""
        self._card.value = _card(self._records[self.class_index], self._confusions())

    def _confusions(self) -> list[str]:
        try:
            confusions = self._graphs.confusions(self.class_index)
        except AtlasError:
            return []
        return [
            f"{one.name or 'something else'} ({one.share:.0%})"
            if one.share is not None
            else f"{one.name or 'something else'} ({one.count:,})"
            for one in confusions[:3]
        ]

    # The map

    def _draw_map(self, _: object = None) -> None:
        """The map of the layer, with the classes nearest to the chosen one if they are many."""
        old = self._stage.children
        try:
            points = self._graphs.embedding(self.layer)
        except AtlasError as error:
            self._map = None
            self._stage.children = (ipywidgets.HTML(paragraph(f"No map of classes: {error}")),)
            self._layers.layout.display = self._recentre.layout.display = "none"
        else:
            kept = _nearest(points, self.class_index)
            self._map = _Map([self._records[index] for index in kept], _places(points, kept))
            self._map.widget.on("node", "click", guarded(self._point_clicked, self._trouble))
            self._map.widget.on("node", "mouseover", guarded(self._point_entered, self._trouble))
            self._map.widget.on("node", "mouseout", guarded(self._point_left, self._trouble))
            self._light()
            self._stage.children = (self._map.widget,)
        for one in old:
            if isinstance(one, ipycytoscape.CytoscapeWidget):
                close(one)

    def _moved(self, _: object = None) -> None:
        """Another layer: the points move there."""
        if self._map is None:
            self._draw_map()
            return
        points = self._graphs.embedding(self.layer)
        self._map.move(_places(points, self._map.points))
        self._light()

    def _point_clicked(self, event: dict[str, Any]) -> None:
        self.class_index = event["data"]["number"]

    def _point_entered(self, event: dict[str, Any]) -> None:
        record = self._records[event["data"]["number"]]
        self._pointed.value = paragraph(", ".join([record.name, *_numbers(record)]))

    def _point_left(self, _: object = None) -> None:
        self._pointed.value = ""

    def _light(self) -> None:
        """What stands out in the map: the chosen class, those compared, the nearest."""
        if self._map is None:
            return
        try:
            near = self._graphs.similar(self.class_index, self.layer, _NEAREST)
        except AtlasError:
            near = ()
        self._map.light((self.class_index, *self.compared), [one.index for one in near])
        shown, all_classes = len(self._map.points), len(self._records)
        chosen = self._records[self.class_index].name
        said = []
        if self.class_index not in self._map.places:
            said.append(f"{chosen} has no place in {self.layer}: none of its neurons is counted.")
        if near:
            named = ", ".join(f"{one.name} ({one.cosine:.2f})" for one in near)
            said.append(f"Most like {chosen} in {self.layer}: {named}.")
        if shown < all_classes:
            said.append(f"{shown:,} of {all_classes:,} classes are on the map.")
        self._said.value = paragraph(" ".join(said))
        self._recentre.layout.display = "" if all_classes > MOST_POINTS else "none"
        self._recentre.description = f"Show the {MOST_POINTS} nearest to the chosen class"


class _Place(NamedTuple):
    """Pixels from the map's upper left corner."""

    x: float
    y: float


class _Map:
    """The points of a map. points: the classes on it, by index; places: where they are now."""

    def __init__(self, records: Sequence[ClassRecord], places: dict[int, _Place]) -> None:
        self.points = tuple(record.index for record in records)
        self.places = places
        self._crowded = len(records) > _NAMED
        centre = _Place(_MAP[0] / 2, _MAP[1] / 2)
        nodes = [
            ipycytoscape.Node(
                data={
                    "id": f"c{record.index}",
                    "number": record.index,
                    "label": _short(record.name),
                },
                position=places.get(record.index, centre)._asdict(),
            )
            for record in records
        ]
        self.widget = ipycytoscape.CytoscapeWidget(
            graph=ipycytoscape.Graph(nodes=nodes, edges=[]),
            cytoscape_layout={"name": "preset", "fit": True, "padding": 36},
            auto_ungrabify=True,
            tooltip_source="",
            min_zoom=0.2,
            max_zoom=6,
            layout=Layout(width="auto"),
        )
        self.widget.add_class(height_class(_MAP_HEIGHT))

    def move(self, places: dict[int, _Place]) -> None:
        """Moves the points smoothly."""
        self.places = places
        positions = {f"c{index}": place._asdict() for index, place in places.items()}
        centre = _Place(_MAP[0] / 2, _MAP[1] / 2)._asdict()
        for index in self.points:
            positions.setdefault(f"c{index}", centre)
        self.widget.cytoscape_layout = {
            "name": "preset",
            "positions": positions,
            "fit": True,
            "padding": 36,
            "animate": True,
            "animationDuration": 600,
        }

    def light(self, shown: Sequence[int], near: Iterable[int]) -> None:
        """The style sheet: what stands out, and which points have names.

        shown: the classes of the graph, the chosen one first.
        """
        standing = [index for index in near if index in self.places]
        sheet = [
            _rule(
                "node",
                {
                    "width": 7 if self._crowded else 9,
                    "height": 7 if self._crowded else 9,
                    "background-color": _PALE,
                    "label": "data(label)",
                    # Among many, the names come when one is close.
                    "font-size": 4 if self._crowded else 12,
                    "min-zoomed-font-size": 10 if self._crowded else 0,
                    "color": "#1F2933",
                    "text-margin-y": -1,
                    "text-background-color": "#FFFFFF",
                    "text-background-opacity": 0.75,
                    "text-background-padding": 1,
                },
            )
        ]
        side = 11 if self._crowded else 14
        for index in standing:
            near_look = {"width": side, "height": side, "background-color": appearance.EDGE}
            sheet.append(_rule(f"node[number = {index}]", {**near_look, "z-index": 5}))
        for index, colour in zip(shown, appearance.CLASSES, strict=False):
            look = {"width": side + 3, "height": side + 3, "background-color": colour}
            named = {"min-zoomed-font-size": 0, "font-size": 12, "z-index": 9}
            sheet.append(_rule(f"node[number = {index}]", {**look, **named}))
        ring = {"underlay-color": appearance.CHOSEN, "underlay-opacity": 1, "underlay-padding": 4}
        ring["underlay-shape"] = "ellipse"
        sheet.append(_rule(f"node[number = {shown[0]}]", {**ring, "font-weight": "bold"}))
        absent = [index for index in self.points if index not in self.places]
        if absent:
            selector = ", ".join(f"node[number = {index}]" for index in absent)
            sheet.append(_rule(selector, {"display": "none"}))
        self.widget.set_style(sheet)


def _nearest(points: Sequence[ClassPoint], chosen: int) -> tuple[int, ...]:
    """The classes that the map shows, by index: all, or the nearest to the chosen one."""
    if len(points) <= MOST_POINTS:
        return tuple(point.index for point in points)
    here = next((point for point in points if point.index == chosen), points[0])
    near = sorted(
        points, key=lambda one: ((one.x - here.x) ** 2 + (one.y - here.y) ** 2, one.index)
    )
    return tuple(sorted(point.index for point in near[:MOST_POINTS]))


def _places(points: Sequence[ClassPoint], kept: Iterable[int]) -> dict[int, _Place]:
    """Pixels of the classes kept, of those that have a place: the map is filled both ways alike."""
    wanted = set(kept)
    shown = [point for point in points if point.index in wanted]
    if not shown:
        return {}
    low_x, high_x = min(one.x for one in shown), max(one.x for one in shown)
    low_y, high_y = min(one.y for one in shown), max(one.y for one in shown)
    scale = min(
        _MAP[0] / (high_x - low_x) if high_x > low_x else float("inf"),
        _MAP[1] / (high_y - low_y) if high_y > low_y else float("inf"),
    )
    if scale == float("inf"):
        scale = 1.0
    return {
        one.index: _Place(
            round(_MAP[0] / 2 + scale * (one.x - (low_x + high_x) / 2), 2),
            round(_MAP[1] / 2 - scale * (one.y - (low_y + high_y) / 2), 2),
        )
        for one in shown
    }


def _start(classes: Sequence[ClassRecord]) -> ClassRecord:
    """The class shown first: with a graph, and the most images. Raises: AtlasError."""
    drawn = [record for record in classes if record.neurons]
    if not drawn:
        raise AtlasError(
            "no class has an attribution graph: rank the atlas with `summit-graph rank`."
        )
    return max(drawn, key=lambda record: (record.images or 0, -record.index))


def _numbers(record: ClassRecord) -> list[str]:
    """What is known of a class, in a few words each."""
    said = []
    if record.images is not None:
        said.append(f"{record.images:,} images")
    if record.top1 is not None:
        said.append(f"top-1 {record.top1:.0%}")
    if record.top5 is not None:
        said.append(f"top-5 {record.top5:.0%}")
    if record.neurons is not None and record.edges is not None:
        said.append(f"{record.neurons:,} neurons and {record.edges:,} influences")
    return said


def _card(record: ClassRecord, confusions: Sequence[str]) -> str:
    """The chosen class as markup; names are text."""
    wrap = "margin:0;line-height:1.3;overflow-wrap:anywhere"
    parts = [f"<h3 style='{wrap}'>{escape(record.name)}</h3>"]
    parts.append(paragraph(", ".join(_numbers(record))))
    if record.probability is not None and any(record.probability):
        most = max(record.probability)
        bars = "".join(
            f"<span title='{at / 10:.1f} to {(at + 1) / 10:.1f}: {count:,} images' "
            f"style='display:inline-block;width:9%;margin-right:1%;background:{appearance.CLASSES[0]};"
            f"height:{max(1, round(28 * count / most))}px'></span>"
            for at, count in enumerate(record.probability)
        )
        parts.append(
            "<div style='line-height:0' role='img' aria-label='Images by the probability of their "
            f"class, from 0 to 1: {', '.join(map(str, record.probability))}'>{bars}</div>"
            f"{paragraph('Probability of the class, from 0 to 1, over its images.')}"
        )
    if confusions:
        parts.append(paragraph(f"Taken for {', '.join(confusions)}."))
    return "".join(parts)


def _sparkline(bins: Sequence[int]) -> str:
    """A histogram in a line of text."""
    most = max(bins)
    return "".join(_BARS[round((len(_BARS) - 1) * count / most)] for count in bins)


def _name_order(record: ClassRecord) -> tuple[str, int]:
    return record.name.casefold(), record.index


def _short(name: str) -> str:
    """The first of the names that a name lists, at most 28 letters."""
    first = name.split(",")[0].strip()
    return first if len(first) <= 28 else f"{first[:27]}…"


def _rule(selector: str, css: dict[str, Any]) -> dict[str, Any]:
    return {"selector": selector, "style": css}
