"""The attribution graph of a class, or of several, as a notebook widget.

1. `scene` says what is shown and where, `canvas` draws it with ipycytoscape.
2. What somebody does (a click, a slider, a button) comes to Python, which changes the style sheet
   or writes the details; nothing is computed in the browser.
3. What cannot be answered is said in the widget itself.

It is the same in JupyterLab, Notebook 7 and Voilà, and asks no other address for anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets
import traitlets
from ipywidgets import Layout

from summit_graph.atlas.atlas import Atlas
from summit_graph.atlas.interface import (
    ExampleRecord,
    Graphs,
    NeuronRecord,
    NeuronView,
    find_neuron,
    share_of,
)
from summit_graph.errors import SummitGraphError, UnknownNeuron
from summit_graph.explain.pictures import Pictures
from summit_graph.view import appearance
from summit_graph.view.canvas import (
    Emphasis,
    canvas,
    close,
    data_uri,
    height_of,
    height_rule,
    style,
    suited,
    tiny,
)
from summit_graph.view.figure import figure_bytes, scene_figure
from summit_graph.view.scene import (
    MOST_EDGES,
    MOST_NEURONS,
    Scene,
    SceneEdge,
    SceneNeuron,
    described,
    grown,
    joined,
    pictures_of,
    scene,
    strongest,
)

_LISTED = 5
_CLASSES = 30
_GROWTH = 10
"""Influences each way that growing from a neuron adds."""

_NOBODY = "—"
_HERE = -1
_SAVED = "summit-graph"


def attribution_widget(
    graphs: Graphs,
    name: str | int,
    *,
    pictures: Pictures | Atlas | str | Path | None = None,
    compare: str | int | Sequence[str | int] | None = None,
    height: int | None = None,
) -> AttributionWidget:
    """The attribution graph of a class as a widget, or of up to four classes in one picture.

    graphs: an atlas or a `GraphDB`. name, compare: a class, and one or more beside it, each as
    `graphs.find` takes it. pictures: the atlas, or the folder, that has the feature visualisations
    and dataset examples; None: `graphs`, if it is an atlas. height: pixels of the graph; None: by
    its rows.
    Raises: UnknownClass; AtlasError if the atlas is not ranked; UsageError if there are more than
    four classes, or one of them is there twice.
    """
    return AttributionWidget(graphs, name, pictures=pictures, compare=compare, height=height)


class AttributionWidget(ipywidgets.VBox):  # type: ignore[misc]
    """The widget that `attribution_widget` makes.

    Its traits can be read, set and observed: class_index, the class shown; neuron, the name of the
    chosen neuron or ""; least, the weakest influence shown, as a share of the strongest, 0 to 1.
    """

    class_index = traitlets.Int(read_only=True)
    neuron = traitlets.Unicode("")
    least = traitlets.Float(0.0, min=0.0, max=1.0)

    def __init__(
        self,
        graphs: Graphs,
        name: str | int,
        *,
        pictures: Pictures | Atlas | str | Path | None = None,
        compare: str | int | Sequence[str | int] | None = None,
        height: int | None = None,
    ) -> None:
        self._graphs = graphs
        self._pictures = pictures_of(graphs, pictures)
        self._height = height
        self._whole = self._drawn = scene(graphs, name, compare)
        self._hidden: set[str] = set()
        self._hovered: tuple[str, int] | None = None
        self._busy = False
        self._number: dict[str, int] = {}
        self._canvas: Any = None

        self._heading = ipywidgets.HTML()
        self._offer = ipywidgets.VBox()
        self._least = ipywidgets.FloatSlider(
            description="Least influence",
            min=0.0,
            max=1.0,
            step=0.01,
            readout_format=".0%",
            style={"description_width": "auto"},
            layout=Layout(width="220px"),
        )
        self._neurons = ipywidgets.Dropdown(
            description="Neuron",
            options=[(_NOBODY, "")],
            style={"description_width": "auto"},
            layout=Layout(width="180px", margin="2px 8px"),
        )
        self._focus = _toggle("Focus", "Fade what is not on a path through the chosen neuron")
        self._grow = _toggle("Grow", "A click on a neuron adds its strongest neighbours")
        self._hide = _button("Hide", "Hide the chosen neuron")
        self._all = _button("Show all", "Show what is hidden, take away what was added")
        self._fit = _button("Fit", "Show the whole graph")
        self._save = _button("Save picture", "As PNG and SVG, as it is shown now")
        self._links = ipywidgets.HBox()
        self._stage = ipywidgets.Box(layout=Layout(flex="1 1 420px", min_width="0"))
        self._line = ipywidgets.HTML()
        self._details = ipywidgets.HTML()
        self._elsewhere = ipywidgets.Dropdown(
            options=[(_NOBODY, _HERE)], layout=Layout(width="auto", display="none")
        )
        self._trouble = ipywidgets.HTML()
        side = ipywidgets.VBox(
            [self._details, self._elsewhere],
            layout=Layout(flex="0 0 270px", overflow="auto", padding="0 0 0 8px"),
        )
        self._side = side
        controls = [self._least, self._neurons, self._focus, self._grow, self._hide, self._all]
        super().__init__(
            [
                self._heading,
                self._offer,
                ipywidgets.HBox(
                    [*controls, self._fit, self._save, self._links],
                    layout=Layout(flex_flow="row wrap", align_items="center"),
                ),
                ipywidgets.HBox([self._stage, side], layout=Layout(flex_flow="row wrap")),
                self._line,
                self._trouble,
            ]
        )
        traitlets.link((self, "least"), (self._least, "value"))
        traitlets.link((self, "neuron"), (self._neurons, "value"))
        self.observe(self._guarded(self._restyle), "least")
        self.observe(self._guarded(self._choose), "neuron")
        self._focus.observe(self._guarded(self._restyle), "value")
        self._hide.on_click(self._guarded(self._hide_chosen))
        self._all.on_click(self._guarded(self._show_all))
        self._fit.on_click(self._guarded(self._fit_all))
        self._save.on_click(self._guarded(self._save_picture))
        self._elsewhere.observe(self._guarded(self._go), "value")
        self._open(self._whole)

    def __repr__(self) -> str:
        names = ", ".join(map(repr, self._whole.names))
        return f"AttributionWidget({names}: {described(self._whole)[:-1]})"

    def show(self, name: str | int, compare: str | int | Sequence[str | int] | None = None) -> None:
        """Shows another class, or several. Raises: as `attribution_widget` does."""
        self._open(scene(self._graphs, name, compare))

    def choose(self, neuron: str) -> None:
        """Chooses a neuron of the picture by name; none, if it is not there."""
        self.neuron = neuron if neuron in self._number else ""

    @traitlets.validate("neuron")
    def _known(self, proposal: Any) -> str:
        """Refuses what is no neuron of the picture."""
        name: str = proposal["value"]
        if name and name not in self._number:
            find_neuron(self._graphs.layers, name)
            raise UnknownNeuron(f"{name} is not in this picture.")
        return name

    # What is shown

    def _open(self, whole: Scene) -> None:
        """Another scene, from its beginning."""
        self._whole = whole
        self._hidden.clear()
        self._focus.value = False
        self._grow.disabled = whole.compared
        self._grow.value = self._grow.value and not whole.compared
        self.set_trait("class_index", whole.classes[0].index)
        if whole.crowded:
            self._offer_strongest()
        else:
            self._offer.children = ()
            self._draw(whole)

    def _offer_strongest(self) -> None:
        """More than a browser draws: ask before anything is drawn."""
        few = _button(
            f"Show the {min(MOST_NEURONS, len(self._whole.neurons))} strongest",
            f"At most {MOST_NEURONS:,} neurons and {MOST_EDGES:,} influences",
            width="auto",
        )
        few.on_click(self._guarded(self._show_strongest))
        self._offer.children = (
            ipywidgets.HTML(
                paragraph(
                    f"This picture has {described(self._whole)[:-1]}: too many to draw here and to "
                    "take in. The strongest can be shown first; a figure or a page shows them all."
                )
            ),
            few,
        )
        self._clear()

    def _show_strongest(self, _: object = None) -> None:
        few = strongest(self._whole)
        self._offer.children = (
            ipywidgets.HTML(
                paragraph(f"The strongest of {described(self._whole)} The others are left out.")
            ),
        )
        self._draw(few)

    def _clear(self) -> None:
        old, self._stage.children = self._stage.children, ()
        for one in old:
            close(one)
        self._canvas = None
        self._drawn = self._whole
        self._number = {}
        self._heading.value = self._title(self._whole)
        self._list([], "")

    def _list(self, names: Sequence[str], chosen: str) -> None:
        """The neurons that can be chosen, and the one that is, if it is among them."""
        self._busy = True
        try:
            self._neurons.options = [(_NOBODY, ""), *((name, name) for name in names)]
            self.choose(chosen)
        finally:
            self._busy = False

    def _draw(self, drawn: Scene) -> None:
        """A scene in place of the one before."""
        self._drawn = drawn = suited(drawn)
        self._number = {neuron.name: neuron.number for neuron in drawn.neurons}
        self._hovered = None
        height = self._height or height_of(drawn)
        self._heading.value = height_rule(height) + self._title(drawn)
        kept = self.neuron
        names = sorted(drawn.neurons, key=lambda neuron: (-neuron.y, neuron.channel))
        self._list([one.name for one in reversed(names)], kept)
        widget = canvas(drawn, self._pictures, height)
        widget.on("node", "click", self._guarded(self._clicked))
        widget.on("node", "mouseover", self._guarded(self._node_entered))
        widget.on("node", "mouseout", self._guarded(self._left))
        widget.on("edge", "click", self._guarded(self._edge_entered))
        widget.on("edge", "mouseover", self._guarded(self._edge_entered))
        widget.on("edge", "mouseout", self._guarded(self._left))
        old = self._stage.children
        self._canvas = widget
        self._side.layout.max_height = f"{height}px"
        self._restyle()
        self._stage.children = (widget,)
        for one in old:
            close(one)
        self._describe()

    def _title(self, drawn: Scene) -> str:
        names = [
            _coloured(name, colour) if drawn.compared else escape(name)
            for name, colour in zip(drawn.names, appearance.CLASSES, strict=False)
        ]
        legend = ""
        if drawn.compared:
            where = "both" if len(names) == 2 else "more than one"
            legend = f" In {where}: {_coloured('double frame', appearance.SHARED)}."
        tiles = f" {escape(self._missing(drawn))}"
        return (
            "<h3 style='margin:4px 0 0;line-height:1.3;overflow-wrap:anywhere'>"
            f"{joined(names)}</h3>"
            f"<p style='margin:0;line-height:1.4'>{escape(described(drawn))}{legend}{tiles} "
            "Squares are neurons, larger the more images they are active in; lines are influences, "
            "from the first layer at the bottom to the last on top.</p>"
        )

    def _missing(self, drawn: Scene) -> str:
        """Why there are no pictures, if there are none."""
        if not drawn.neurons:
            return "The class has no attribution graph: none of its images was counted."
        if self._graphs.partial and self._pictures is not None and self._pictures.atlas.partial:
            return "Tiles have channel numbers: the published graphs come without pictures."
        if self._pictures is None:
            return "Tiles have channel numbers: name the atlas that has pictures (pictures=…)."
        if not any(self._pictures.feature(neuron.name) for neuron in drawn.neurons):
            return "Tiles have channel numbers: `summit-graph features` makes pictures of neurons."
        return ""

    # What somebody does

    def _guarded(self, act: Callable[[Any], None]) -> Callable[[Any], None]:
        return guarded(act, self._trouble)

    def _say(self, trouble: str) -> None:
        self._trouble.value = trouble_markup(trouble)

    def _restyle(self, _: object = None) -> None:
        """Shows, hides and fades by the state of the controls."""
        self._links.children = ()
        self._paint()

    def _paint(self) -> None:
        """The style sheet of what is drawn, if anything is."""
        if self._canvas is not None:
            self._canvas.set_style(style(self._drawn, self._emphasis()))

    def _emphasis(self) -> Emphasis:
        drawn = self._drawn
        hidden = frozenset(self._number[name] for name in self._hidden if name in self._number)
        chosen = self._number.get(self.neuron)
        lit: frozenset[int] | None = None
        lit_edges: frozenset[int] = frozenset()
        visible = [
            (number, edge)
            for number, edge in enumerate(drawn.edges)
            if edge.strength >= self.least and not {edge.source, edge.target} & hidden
        ]
        if self._hovered is not None:
            kind, number = self._hovered
            near = [
                (at, edge)
                for at, edge in visible
                if (at == number if kind == "edge" else number in (edge.source, edge.target))
            ]
            ends = {end for _, edge in near for end in (edge.source, edge.target)}
            lit = frozenset(ends | ({number} if kind == "node" else set()))
            lit_edges = frozenset(at for at, _ in near)
        elif self._focus.value and chosen is not None:
            lit, lit_edges = _paths(chosen, visible)
        return Emphasis(self.least, hidden, lit, lit_edges, chosen)

    def _clicked(self, event: dict[str, Any]) -> None:
        neuron = self._drawn.neurons[event["data"]["number"]]
        if self.neuron == neuron.name:
            self._choose()
        self.neuron = neuron.name

    def _node_entered(self, event: dict[str, Any]) -> None:
        number = event["data"]["number"]
        self._hovered = ("node", number)
        self._line.value = escape(_one_line(self._drawn, self._drawn.neurons[number]))
        self._paint()

    def _edge_entered(self, event: dict[str, Any]) -> None:
        number = event["data"]["number"]
        self._hovered = ("edge", number)
        self._line.value = escape(_edge_line(self._drawn, self._drawn.edges[number]))
        self._paint()

    def _left(self, _: object = None) -> None:
        self._hovered = None
        self._line.value = ""
        self._paint()

    def _choose(self, _: object = None) -> None:
        """The neuron that was chosen: its ring, its details, its neighbours if asked for."""
        if self._busy:
            return
        self._trouble.value = ""
        if self._grow.value and self.neuron:
            self._grow_from(self.neuron)
        self._hovered = None
        self._restyle()
        self._describe()

    def _hide_chosen(self, _: object = None) -> None:
        if not self.neuron:
            self._say("Choose a neuron to hide: click it.")
            return
        self._hidden.add(self.neuron)
        self.neuron = ""

    def _show_all(self, _: object = None) -> None:
        self._hidden.clear()
        self._focus.value = False
        self.least = 0.0
        if any(not neuron.owners for neuron in self._drawn.neurons):
            self._draw(strongest(self._whole) if self._whole.crowded else self._whole)
        else:
            self._restyle()

    def _fit_all(self, _: object = None) -> None:
        if self._canvas is not None:
            self._canvas.relayout()

    def _save_picture(self, _: object = None) -> None:
        hidden = [self._number[name] for name in self._hidden if name in self._number]
        figure = scene_figure(self._drawn.without(hidden, self.least), pictures=self._pictures)
        stem = joined(self._drawn.names)
        # Widgets made anew, for the server lets only new ones be of any size.
        self._links.children = [
            ipywidgets.HTML(
                f"<a download='{escape(_file_name(stem), quote=True)}.{kind}' "
                f"href='{data_uri(figure_bytes(figure, kind), mime)}' "
                f"style='text-decoration:underline;margin-right:8px'>{kind.upper()}</a>"
            )
            for kind, mime in (("png", "image/png"), ("svg", "image/svg+xml"))
        ]

    def _go(self, _: object = None) -> None:
        index = self._elsewhere.value
        if index != _HERE and not self._busy:
            kept = self.neuron
            self.show(index)
            self.choose(kept)

    def _grow_from(self, name: str) -> None:
        """Adds the strongest neighbours of a neuron, asked of the atlas or of Neo4j."""
        record = self._whole.classes[0]
        found = self._graphs.neighbours(name, record.index, _GROWTH)
        edges = [*found.sources, *found.targets]
        new = {end for edge in edges for end in (edge.source, edge.target)} - set(self._number)
        places = {one: find_neuron(self._graphs.layers, one) for one in sorted(new)}
        counts = self._counts({layer.name for layer, _ in places.values()})
        neurons = []
        for one, (layer, channel) in places.items():
            count = counts.get((layer.name, channel), 0)
            share = share_of(count, record.images)
            neurons.append(NeuronRecord(one, layer.name, channel, 0.0, 0, count, share))
        more = grown(self._drawn, neurons, edges)
        if more.crowded:
            self._say(
                f"With the neighbours of {name} there would be {described(more)[:-1]}: too many to "
                "draw here. Show all takes away what was added."
            )
            return
        if len(more.neurons) + len(more.edges) > len(self._drawn.neurons) + len(self._drawn.edges):
            self._draw(more)

    def _counts(self, layers: Iterable[str]) -> dict[tuple[str, int], int]:
        """In how many images of the class the neurons of some layers are active."""
        counts = {}
        for name in sorted(layers):
            table = self._graphs.activations(self._whole.classes[0].index, name)
            columns = (table.column(column).to_pylist() for column in ("channel", "count"))
            for channel, count in zip(*columns, strict=True):
                counts[name, channel] = count
        return counts

    # Details

    def _describe(self) -> None:
        """The details of the chosen neuron, or how to choose one."""
        self._point_elsewhere([])
        if not self.neuron:
            self._details.value = paragraph(
                "Click a neuron to see what excites it and which classes it matters to. Hover over "
                "a neuron or a line to see only its influences."
            )
            return
        neuron = self._drawn.neurons[self._number[self.neuron]]
        self._details.value = self._details_of(neuron)
        self._point_elsewhere(self._others(self._graphs.neuron(neuron.name)))

    def _point_elsewhere(self, others: Sequence[tuple[int, str, int | None]]) -> None:
        """Offers other classes to go to: index, name, rank."""
        self._busy = True
        try:
            self._elsewhere.options = [
                (f"Also in {len(others)} more: go to …", _HERE),
                *((f"{name} (rank {rank})", index) for index, name, rank in others[:_CLASSES]),
            ]
            self._elsewhere.value = _HERE
        finally:
            self._busy = False
        self._elsewhere.layout.display = "" if others else "none"

    def _others(self, view: NeuronView) -> list[tuple[int, str, int | None]]:
        """Other classes whose attribution graph has a neuron: index, name, rank."""
        shown = {one.index for one in self._drawn.classes}
        return [
            (one.index, one.name, one.rank)
            for one in view.classes
            if one.selected and one.index not in shown
        ]

    def _details_of(self, neuron: SceneNeuron) -> str:
        parts = [f"<h4 style='margin:4px 0;overflow-wrap:anywhere'>{escape(neuron.name)}</h4>"]
        parts.extend(paragraph(one) for one in _facts(self._drawn, neuron))
        if self._pictures is not None:
            feature = self._pictures.feature(neuron.name)
            if feature is not None:
                parts.append(_captioned("Feature visualisation", [(feature, "", 150)]))
            diverse = self._pictures.diverse(neuron.name)
            if diverse:
                parts.append(_captioned("Diverse ones", [(one, "", 70) for one in diverse]))
        parts.append(self._examples_of(neuron.name))
        parts.append(self._influences_of(neuron))
        return "".join(parts)

    def _examples_of(self, name: str) -> str:
        """The dataset examples of a neuron: what it sees of them, or their paths."""
        patches = () if self._pictures is None else self._pictures.patches(name)
        if patches:
            shown = [(one.webp, _exemplified(one.example), 56) for one in patches]
            return _captioned("Dataset examples", shown)
        if self._graphs.partial:
            return ""
        examples = self._graphs.examples(name)[:_LISTED]
        named = ", ".join(f"{one.path} ({one.activation:.3g})" for one in examples)
        return paragraph(f"Dataset examples: {named}") if examples else ""

    def _influences_of(self, neuron: SceneNeuron) -> str:
        """The strongest influences into and out of a neuron, of those in the picture."""
        parts = []
        for heading, end, other in (("To", "source", "target"), ("From", "target", "source")):
            edges = [edge for edge in self._drawn.edges if getattr(edge, end) == neuron.number]
            edges.sort(key=lambda edge: -edge.strength)
            if edges:
                named = ", ".join(
                    f"{self._drawn.neurons[getattr(edge, other)].name} ({_counts(edge)})"
                    for edge in edges[:_LISTED]
                )
                more = f" and {len(edges) - _LISTED} more" if len(edges) > _LISTED else ""
                parts.append(paragraph(f"{heading} {named}{more}"))
        return "".join(parts)


def guarded(act: Callable[[Any], None], place: Any) -> Callable[[Any], None]:
    """An answer to an event that says in the widget `place` what went wrong.

    What is no error of ours is raised as well, for the notebook's log.
    """

    def answer(event: Any = None) -> None:
        try:
            act(event)
        except SummitGraphError as error:
            place.value = trouble_markup(str(error))
        except Exception as error:
            place.value = trouble_markup(f"{type(error).__name__}: {error}")
            raise

    return answer


def trouble_markup(trouble: str) -> str:
    """A message about what went wrong, as markup."""
    return f"<div role='alert'>{paragraph(trouble, 'color:#B42318')}</div>"


def paragraph(text: str, style: str = "") -> str:
    """Text as a paragraph of markup; what looks like markup in it is text as well."""
    return (
        f"<p style='margin:4px 0;line-height:1.4;overflow-wrap:anywhere;{style}'>{escape(text)}</p>"
    )


def _paths(
    chosen: int, edges: Sequence[tuple[int, SceneEdge]]
) -> tuple[frozenset[int], frozenset[int]]:
    """Neurons and edges on the paths that lead to a neuron and on from it."""
    neurons, lit = {chosen}, set()
    for start, end in (("source", "target"), ("target", "source")):
        reached, waiting = {chosen}, [chosen]
        while waiting:
            at = waiting.pop()
            for number, edge in edges:
                if getattr(edge, start) == at:
                    lit.add(number)
                    other = getattr(edge, end)
                    if other not in reached:
                        reached.add(other)
                        waiting.append(other)
        neurons |= reached
    return frozenset(neurons), frozenset(lit)


def _facts(drawn: Scene, neuron: SceneNeuron) -> list[str]:
    """What a neuron is to each class of the picture."""
    if not neuron.owners:
        (added,) = neuron.records
        assert added is not None
        return [f"Not in the attribution graph. Active in {_counted(added.count, added.share)}."]
    facts = []
    for record, known in zip(drawn.classes, neuron.records, strict=True):
        prefix = f"{record.name}: " if drawn.compared else ""
        if known is None:
            facts.append(f"{prefix}not in its attribution graph")
        else:
            facts.append(
                f"{prefix}rank {known.rank} (PageRank {known.pagerank:.4f}), active in "
                f"{_counted(known.count, known.share)}"
            )
    return facts


def _counted(count: int, share: float | None) -> str:
    images = f"{count:,} image{'' if count == 1 else 's'}"
    return images if share is None else f"{images} ({share:.0%})"


def _one_line(drawn: Scene, neuron: SceneNeuron) -> str:
    return f"{neuron.name}: {'; '.join(_facts(drawn, neuron))}"


def _counts(edge: SceneEdge) -> str:
    return joined([f"{record.count:,}" for record in edge.records if record is not None])


def _edge_line(drawn: Scene, edge: SceneEdge) -> str:
    source, target = drawn.neurons[edge.source], drawn.neurons[edge.target]
    said = []
    for record, known in zip(drawn.classes, edge.records, strict=True):
        if known is not None:
            prefix = f"{record.name}: " if drawn.compared else ""
            said.append(f"{prefix}in {_counted(known.count, known.share)}")
    return f"{source.name} → {target.name}: {'; '.join(said)}"


def _exemplified(example: ExampleRecord) -> str:
    return f"{example.path}, activation {example.activation:.3g}"


def _captioned(caption: str, pictures: Sequence[tuple[bytes, str, int]]) -> str:
    """Pictures under a caption: (bytes, title, pixels of a side)."""
    images = "".join(
        f"<img src='{data_uri(content)}' alt='{escape(title or caption, quote=True)}' "
        f"title='{escape(title, quote=True)}' "
        f"style='width:{side}px;height:{side}px;object-fit:contain;margin:1px;"
        f"image-rendering:{'pixelated' if tiny(content) else 'auto'};border-radius:3px'>"
        for content, title, side in pictures
    )
    return f"{paragraph(caption)}<div style='line-height:0'>{images}</div>"


def _coloured(name: str, colour: str) -> str:
    return f"<span style='border-bottom:3px solid {colour}'>{escape(name)}</span>"


def _file_name(name: str) -> str:
    """A name without what file systems do not take."""
    kept = "".join(letter if letter.isalnum() or letter in " -_,()" else "-" for letter in name)
    return kept.strip()[:100] or _SAVED


def _toggle(text: str, tip: str) -> Any:
    return ipywidgets.ToggleButton(description=text, tooltip=tip, layout=Layout(width="auto"))


def _button(text: str, tip: str, width: str = "auto") -> Any:
    return ipywidgets.Button(description=text, tooltip=tip, layout=Layout(width=width))
