"""What an atlas says, set out for a person: texts for the terminal, a pipe or a file.

Every function takes the records that `Atlas` answers with and returns what Rich prints; none of
them reads or prints anything. Names come from outside and are shown as they are, except for
control characters, which are spelled out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from summit_graph.progress import plural

if TYPE_CHECKING:
    from summit_graph.atlas.interface import (
        AttributionGraph,
        ClassRecord,
        Comparison,
        Confusion,
        EdgeRecord,
        ExampleRecord,
        Graphs,
        Neighbourhood,
        NeuronRecord,
        NeuronView,
        SimilarClass,
        Vote,
    )
    from summit_graph.atlas.schema import LayerEntry
    from summit_graph.atlas.summit import ImportReport
    from summit_graph.network.trace import Choice, Network
    from summit_graph.reporting import IngestReport, RankReport

LARGE = 50
"""Neurons of a graph of which `attribution_graph` shows only the first `FEW` of each layer."""

FEW = 5

_BAR = 10
_FED_BY = 3
_PATHS = 3
_NAMED = 10
_CLASSES = 20
_NAME = 36
_NOT_KNOWN = "not known"


class _Named(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def layer(self) -> str: ...


def plain(text: str) -> str:
    """The text with what is not printable spelled out as in Python, so that it moves no cursor."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def percent(share: float | None) -> str:
    """A share from 0 to 1: `97.8 %`, `100 %`, `0 %`; `-` for None. Never rounded to all or none."""
    if share is None:
        return "-"
    if share in (0, 1):
        return f"{share:.0%}".replace("%", " %")
    return f"{min(max(100 * share, 0.1), 99.9):.1f} %"


def bar(share: float) -> str:
    """A share from 0 to 1 as ten cells; what is more than 0 fills at least one."""
    full = max(round(share * _BAR), 1 if share > 0 else 0)
    return "█" * full + "░" * (_BAR - full)


def _whole(share: float) -> str:
    return f"{min(max(round(100 * share), 1), 100) if share > 0 else 0} %"


def _active(count: int, share: float | None) -> tuple[str, str]:
    """Two cells, bar and percent, that say how often a neuron is active.

    Where the share is not known they are the number of images, and nothing.
    """
    return (f"{count:,}", "") if share is None else (bar(share), _whole(share))


def _sentence(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _paragraph(text: str, style: str = "") -> Text:
    return Text(text, style)


def _indented(content: RenderableType, by: int = 2) -> Padding:
    return Padding(content, (0, 0, 0, by))


def _columns(*styles: str, right: Iterable[int] = (), wide: int | None = None) -> Table:
    """A table without lines or heads; the column `wide` wraps, the others do not."""
    table = Table.grid(padding=(0, 2))
    for number, style in enumerate(styles):
        table.add_column(
            style=style,
            justify="right" if number in set(right) else "left",
            no_wrap=number != wide,
            overflow="fold",
        )
    return table


def commands(*lines: str) -> tuple[RenderableType, ...]:
    """Command lines to be copied: never broken."""
    return tuple(Text(f"  {line}", no_wrap=True, overflow="ignore") for line in lines)


# A class's attribution graph


def attribution_graph(
    graph: AttributionGraph,
    layers: Sequence[LayerEntry],
    *,
    votes: Sequence[Vote] | None = (),
    similar: Sequence[SimilarClass] | None = (),
    confusions: Sequence[Confusion] | None = (),
    by_prediction: bool = False,
    limit: int | None = None,
    legend: bool = True,
) -> RenderableType:
    """A class's attribution graph, from the answer down to the image.

    layers: the chosen ones, in the order of the forward pass. votes, similar, confusions: what else
    is known of the class; None if nothing is. limit: neurons shown of each layer; None for all of a
    graph of up to `LARGE` neurons, else `FEW`. legend: whether it is explained how to read it.
    """
    record = graph.record
    name = plain(record.name)
    by_layer = _by_layer(graph.neurons)
    parts: list[RenderableType] = [
        _headline(graph, len(by_layer)),
        _model_on(record, by_prediction),
    ]
    if not graph.neurons:
        return Group(*parts, "", _empty(record))
    shown = limit or (len(graph.neurons) if len(graph.neurons) <= LARGE else FEW)
    sources = _sources(graph.edges)
    width = min(max(cell_len(neuron.name) for neuron in graph.neurons), _NAME)
    heads = _rows(width)
    heads.add_row(
        "neuron", Text("active in", "default"), "", "fed by (in so many images)", style="italic"
    )
    parts += ["", _indented(heads)]
    if votes is None or votes:
        table = _rows(width)
        inside = {neuron.name for neuron in graph.neurons}
        voters = _voters(votes, inside) if votes else Text(_NOT_KNOWN, "dim")
        table.add_row(f'"{name}"', "", "", voters)
        parts += [Text("the answer", "bold"), _indented(table)]
    first = layers[0].name if layers else ""
    for place, layer in enumerate(layer for layer in reversed(layers) if layer.name in by_layer):
        neurons = by_layer[layer.name]
        table = _rows(width)
        for neuron in neurons[:shown]:
            table.add_row(
                neuron.name,
                *_active(neuron.count, neuron.share),
                _fed(sources[neuron.name], "the image" if layer.name == first else "-"),
            )
        head = Text(layer.name, "bold")
        head.append(f"  {len(neurons)} of {plural(layer.channels, 'neuron')}", "dim")
        if not place:
            head.append(", nearest to the answer", "dim")
        parts += [head, _indented(table)]
        if len(neurons) > shown:
            parts.append(_indented(Text(f"and {len(neurons) - shown} more", "dim")))
    parts += ["", *_paths(graph, layers, votes or ())]
    parts += _beside(similar, confusions, by_prediction)
    if record.unconnected:
        fed = ", ".join(record.unconnected)
        parts.append(_paragraph(f"No neuron of an earlier layer feeds one of these layers: {fed}."))
    if record.converged is False:
        parts.append(
            _paragraph("The ranking did not converge: take the order of neurons with care.")
        )
    if legend:
        parts += ["", *_legend(record)]
    return Group(*parts)


def _headline(graph: AttributionGraph, layers: int) -> Text:
    record = graph.record
    neurons = plural(len(graph.neurons), "neuron")
    return Text(
        f'"{plain(record.name)}" (class {record.index}'
        f"{f', {record.synset}' if record.synset else ''}): "
        f"{neurons} in {plural(layers, 'layer')} matter most, joined by "
        f"{plural(len(graph.edges), 'edge')}.",
        "bold",
    )


def _model_on(record: ClassRecord, by_prediction: bool) -> Text:
    if record.images is None:
        return _paragraph("How many images it has, and how the model does on them, is not known.")
    images = plural(record.images, "image")
    if by_prediction:
        known = "" if record.top1 is None else f", rightly for {percent(record.top1)} of them"
        return _paragraph(f"{images} that the model takes for it{known}.")
    if record.top1 is None:
        return _paragraph(f"{images}.")
    return _paragraph(
        f"{images}; the model's first answer is right for {percent(record.top1)} of them (top-1), "
        f"one of its first five for {percent(record.top5)} (top-5)."
    )


def _empty(record: ClassRecord) -> Text:
    if record.images is None:
        return _paragraph("The published graph of this class has no neuron.")
    if not record.images:
        return _paragraph("No image of this class was counted, so there is no graph to show.")
    return _paragraph(
        "No neuron feeds another in the images of this class, so its graph is empty. Rank again "
        "with fewer neurons left out (summit-graph rank), or count more images."
    )


def _rows(width: int) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(width=width, overflow="fold")
    table.add_column(width=_BAR, no_wrap=True, style="cyan")
    table.add_column(width=5, no_wrap=True, justify="right")
    table.add_column(overflow="fold")
    return table


def _fed(sources: Sequence[tuple[str, int]], nothing: str = "-") -> Text:
    if not sources:
        return Text(nothing, "dim")
    text = Text()
    for place, (name, count) in enumerate(sources[:_FED_BY]):
        text.append(", " if place else "")
        text.append(name)
        text.append(f"\N{NO-BREAK SPACE}({count:,})", "dim")
    if len(sources) > _FED_BY:
        text.append(f", +{len(sources) - _FED_BY}", "dim")
    return text


def _voters(votes: Sequence[Vote], inside: Collection[str]) -> Text:
    """What feeds the answer: first the neurons of the graph, then the others."""
    own = [(vote.name, vote.count) for vote in votes if vote.name in inside]
    others = [(vote.name, vote.count) for vote in votes if vote.name not in inside]
    text = _fed(own) if own else Text()
    if others:
        text.append("; outside the graph: " if own else "outside the graph: ")
        text.append_text(_fed(others))
    return text


def _by_layer(neurons: Iterable[NeuronRecord]) -> dict[str, list[NeuronRecord]]:
    found: dict[str, list[NeuronRecord]] = defaultdict(list)
    for neuron in neurons:
        found[neuron.layer].append(neuron)
    return dict(found)


def _sources(edges: Iterable[EdgeRecord]) -> Mapping[str, list[tuple[str, int]]]:
    """For each neuron its sources in the graph and their counts, the highest first."""
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for edge in edges:
        found[edge.target].append((edge.source, edge.count))
    return found


def paths(
    graph: AttributionGraph, layers: Sequence[LayerEntry], votes: Sequence[Vote] = ()
) -> tuple[tuple[str, ...], ...]:
    """The strongest ways to the answer through an attribution graph, as names, the earliest first.

    A path ends at a neuron of the last layer that the graph has: those with the most votes for the
    class first, then by rank. Each step back goes to the source with the highest count (then the
    better rank), until a neuron has none. At most three, each with an edge.
    """
    if not graph.neurons:
        return ()
    rank = {neuron.name: neuron.rank for neuron in graph.neurons}
    voted = {vote.name: vote.count for vote in votes}
    order = {layer.name: place for place, layer in enumerate(layers)}
    last = max((neuron.layer for neuron in graph.neurons), key=lambda name: order[name])
    ends = [neuron.name for neuron in graph.neurons if neuron.layer == last]
    ends.sort(key=lambda name: (-voted.get(name, 0), rank[name]))
    sources = _sources(graph.edges)
    found = []
    for end in ends:
        path = [end]
        while sources[path[-1]]:
            path.append(min(sources[path[-1]], key=lambda way: (-way[1], rank[way[0]]))[0])
        if len(path) > 1:
            found.append(tuple(reversed(path)))
    return tuple(found[:_PATHS])


def _paths(
    graph: AttributionGraph, layers: Sequence[LayerEntry], votes: Sequence[Vote]
) -> list[RenderableType]:
    found = paths(graph, layers, votes)
    if not found:
        return []
    head = "Strongest path" if len(found) == 1 else "Strongest paths"
    answer = f'"{plain(graph.record.name)}"'
    return [
        Text(f"{head}, from the image to the answer", "bold"),
        *(_indented(Text(" → ".join([*path, answer]))) for path in found),
    ]


def _beside(
    similar: Sequence[SimilarClass] | None,
    confusions: Sequence[Confusion] | None,
    by_prediction: bool,
) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if similar is None:
        parts.append(_paragraph("Nearest classes by activation: not known."))
    if confusions is None:
        parts.append(_paragraph("What its images are taken for: not known."))
    if similar:
        near = ", ".join(f"{plain(other.name)} ({other.cosine:.2f})" for other in similar[:3])
        parts.append(_paragraph(f"Nearest classes by activation (1 is equal): {near}."))
    if confusions:
        others = ", ".join(
            f"{'none of the classes' if other.name is None else plain(other.name)} "
            f"({other.count:,})"
            for other in confusions[:3]
        )
        what = "Some of them are images of" if by_prediction else "Some of its images are taken for"
        parts.append(_paragraph(f"{what}: {others}."))
    return [Text(""), *parts] if parts else []


def _images(record: ClassRecord) -> str:
    return "images" if record.images is None else plural(record.images, "image")


def _legend(record: ClassRecord) -> list[RenderableType]:
    table = _columns("bold", "", wide=1)
    rows = (
        (
            "layer",
            "a step of the network. The image passes them from the last one listed here to the "
            "first, then comes the answer.",
        ),
        (
            "neuron",
            "one channel of a layer, which responds to one kind of pattern; layer/channel is its "
            "name.",
        ),
        (
            "active in",
            f"the {'number' if record.images is None else 'share'} of the class's images in which "
            "it is among the neurons of its layer that respond most.",
        ),
        (
            "fed by",
            "the neurons that excite it most, and in how many of the class's "
            f"{_images(record)} each is among its strongest sources; +2: two more. "
            "A dash: none that is in the graph.",
        ),
        (
            "matter most",
            "the highest in personalised PageRank: active themselves, or well joined to neurons "
            "that are.",
        ),
    )
    for row in rows:
        table.add_row(*row)
    return [Text("How to read this", "bold"), _indented(table)]


# Two classes


def comparison(found: Comparison, layers: Sequence[LayerEntry]) -> RenderableType:
    """The neurons that two classes share, and each one's own, layer by layer from the last."""
    first, second = plain(found.first.name), plain(found.second.name)
    shared = {neuron.name for neuron in found.shared}
    head = Text(
        f'"{first}" and "{second}" share {plural(len(shared), "neuron")}; '
        f'{len(found.only_first)} matter only for "{first}", {len(found.only_second)} only for '
        f'"{second}".',
        "bold",
    )
    parts: list[RenderableType] = [
        head,
        _paragraph(
            f"In brackets: the {'number' if found.first.images is None else 'share'} of the "
            "class's images in which the neuron is active"
            + (f", {first} | {second}." if shared else ".")
        ),
        "",
    ]
    rows: dict[str, list[tuple[str, str]]] = defaultdict(list)
    groups: tuple[tuple[str, list[tuple[str, str]]], ...] = (
        (
            "both",
            [
                (
                    both.first.layer,
                    f"{both.name} ({_often(both.first)} | {_often(both.second)})",
                )
                for both in found.shared
            ],
        ),
        *(
            (
                f"only {name}",
                [(neuron.layer, f"{neuron.name} ({_often(neuron)})") for neuron in own],
            )
            for name, own in ((first, found.only_first), (second, found.only_second))
        ),
    )
    for label, neurons in groups:
        texts: dict[str, list[str]] = defaultdict(list)
        for layer, text in neurons:
            texts[layer].append(text.replace(" ", "\N{NO-BREAK SPACE}"))
        for layer, names in texts.items():
            rows[layer].append((label, ", ".join(names)))
    width = min(max(cell_len(label) for label, _ in groups), _NAME)
    for entry in reversed(layers):
        if entry.name in rows:
            table = Table.grid(padding=(0, 2))
            table.add_column(width=width, overflow="fold")
            table.add_column(overflow="fold")
            for row in rows[entry.name]:
                table.add_row(*row)
            parts += [Text(entry.name, "bold"), _indented(table)]
    return Group(*parts)


def _often(neuron: NeuronRecord) -> str:
    return f"{neuron.count:,}" if neuron.share is None else _whole(neuron.share)


# One neuron


def neuron(
    view: NeuronView,
    examples: Sequence[ExampleRecord] | None,
    record: ClassRecord | None = None,
    around: Neighbourhood | None = None,
) -> RenderableType:
    """The classes that a neuron matters to, the images that excite it, its neighbours for a class.

    record, around: the class whose graph the neighbours are of; None for no class. examples: among
    the images of all classes; None: of a partial atlas, which knows the attribution graphs alone.
    """
    chosen = [entry for entry in view.classes if entry.selected]
    active = f", active in images of {len([entry for entry in view.classes if entry.count])}"
    head = Text(
        f"{view.name}: in the attribution graph of {plural(len(chosen), 'class')}"
        f"{'' if examples is None else active}.",
        "bold",
    )
    parts: list[RenderableType] = [head]
    if examples is None:
        parts.append(_paragraph("What it does for classes whose graph it is not in is not known."))
    if view.classes:
        table = _columns("", "cyan", "", "", "", right=(2, 3), wide=0)
        table.add_row("class", "active in", "", "rank", "")
        for entry in view.classes[:_CLASSES]:
            table.add_row(
                f"{plain(entry.name)} ({entry.index})",
                *_active(entry.count, entry.share),
                "-" if entry.rank is None else f"{entry.rank:,}",
                "in its graph" if entry.selected else "",
            )
        parts += ["", _indented(table)]
        if len(view.classes) > _CLASSES:
            parts.append(
                _indented(Text(f"and {len(view.classes) - _CLASSES} more (--json)", "dim"))
            )
    if record is not None and around is not None:
        table = _columns("bold", "", wide=1)
        none = "-" if examples is not None else _NOT_KNOWN
        sources = [(edge.source, edge.count) for edge in around.sources]
        targets = [(edge.target, edge.count) for edge in around.targets]
        table.add_row("fed by", _fed_all(sources, none))
        table.add_row("feeds", _fed_all(targets, none))
        parts += [
            "",
            Text(
                f'For "{plain(record.name)}" (in so many of its {_images(record)})',
                "bold",
            ),
            _indented(table),
        ]
    if examples:
        table = _columns("", "", right=(0,), wide=1)
        for example in examples:
            table.add_row(f"{example.activation:.2f}", plain(example.path))
        parts += ["", Text("Images that excite it most, and how much", "bold"), _indented(table)]
    elif examples is None:
        parts += ["", Text("Images that excite it most: not known.")]
    return Group(*parts)


def _fed_all(sources: Sequence[tuple[str, int]], none: str) -> Text:
    if not sources:
        return Text(none, "dim")
    return Text(", ".join(f"{name}\N{NO-BREAK SPACE}({count:,})" for name, count in sources))


# An atlas


def info(
    header: Mapping[str, Any],
    path: str,
    graphs: Graphs,
    statuses: Mapping[str, int] | None,
    every_class: bool = False,
) -> RenderableType:
    """What an atlas holds: model, data, layers, ranking, and its classes.

    header: as `Atlas.info` gives it. statuses: images by status (`ok`, or why they were left out);
    None of a partial atlas. every_class: list all classes, not only the first twenty.
    """
    table = _columns("bold", "", wide=1)
    table.add_row("atlas", plain(f"{path} ({header['key']})"))
    table.add_row("model", plain(_model(header["model"])))
    parts: list[RenderableType] = [table]
    if statuses is None:
        classes = list(graphs.classes)
        _add_unknown(table, header, graphs)
    else:
        classes = [record for record in graphs.classes if record.images]
        _add_counted(table, header, graphs, classes, statuses)
    if classes:
        listed = classes if every_class else classes[:_CLASSES]
        rows = _columns("", "", "", "", "", "", right=(0, 2, 3, 4, 5), wide=1)
        rows.add_row("index", "class", "images", "top-1", "neurons", "edges", style="bold")
        for record in listed:
            unknown = record.images is None
            rows.add_row(
                str(record.index),
                plain(record.name) + (f" ({record.synset})" if record.synset else ""),
                _NOT_KNOWN if record.images is None else f"{record.images:,}",
                _NOT_KNOWN if unknown else percent(record.top1),
                "-" if record.neurons is None else f"{record.neurons:,}",
                "-" if record.edges is None else f"{record.edges:,}",
            )
        parts += ["", rows]
        if len(classes) > len(listed):
            parts.append(Text(f"and {len(classes) - len(listed):,} more (--all)", "dim"))
    return Group(*parts)


def _layers(graphs: Graphs) -> str:
    return ", ".join(f"{layer.name} ({layer.channels})" for layer in graphs.layers)


def _add_unknown(table: Table, header: Mapping[str, Any], graphs: Graphs) -> None:
    """What `info` says of a partial atlas."""
    table.add_row("images", f"{plain(header['dataset']['name'])}: {_NOT_KNOWN} which, or how many")
    table.add_row("classes", f"{len(graphs.classes):,} with a graph")
    table.add_row("accuracy", _NOT_KNOWN)
    table.add_row("layers", _layers(graphs))
    table.add_row("counting", _NOT_KNOWN)
    table.add_row("ranking", _NOT_KNOWN)
    table.add_row("partial", plain(header["partial"]))


def _add_counted(
    table: Table,
    header: Mapping[str, Any],
    graphs: Graphs,
    classes: Sequence[ClassRecord],
    statuses: Mapping[str, int],
) -> None:
    """What `info` says of an atlas whose images were counted."""
    identity, ranking = header["identity"], header.get("ranking")
    images = sum(statuses.values())
    left_out = images - statuses.get("ok", 0)
    table.add_row(
        "images",
        _sentence(
            f"{plain(header['dataset']['name'])}: {plural(images, 'image')}",
            f"({left_out:,} of them left out)" if left_out else "",
        ),
    )
    table.add_row(
        "classes",
        f"{len(classes):,} with images, of {len(graphs.classes):,}; an image counts for its "
        f"{'prediction' if identity['grouping'] == 'prediction' else 'label'}",
    )
    judged = [record for record in classes if record.top1 is not None]
    labelled = sum(sum(record.probability or ()) for record in judged)
    if labelled:
        right = [
            sum(sum(record.probability or ()) * (getattr(record, which) or 0) for record in judged)
            / labelled
            for which in ("top1", "top5")
        ]
        table.add_row(
            "accuracy",
            f"top-1 {percent(right[0])}, top-5 {percent(right[1])} of {labelled:,} images",
        )
    table.add_row("layers", _layers(graphs))
    parameters = identity["parameters"]
    table.add_row(
        "counting",
        f"active: the top {percent(parameters['mass'])} of a layer's activation; the "
        f"{parameters['k']} strongest sources; {parameters['examples']} examples a neuron",
    )
    table.add_row("ranking", _ranking(ranking) if ranking else "not ranked yet: summit-graph rank")
    if left_out:
        reasons = ", ".join(
            f"{plain(status)} ({count:,})"
            for status, count in statuses.items()
            if status != "ok" and count
        )
        table.add_row("left out", reasons)


def _model(model: Mapping[str, Any]) -> str:
    spec = model.get("spec")
    weights = model.get("weights")
    inside = ", ".join(part for part in (spec, f"weights: {weights}" if weights else None) if part)
    return f"{model['name']} ({inside})" if inside else str(model["name"])


def _ranking(ranking: Mapping[str, Any]) -> str:
    parts = [f"mass {ranking['mass']:g}", f"damping {ranking['damping']:g}"]
    if ranking.get("sources") is not None:
        parts.append(f"{plural(ranking['sources'], 'indirect source')}")
    if ranking.get("exclude"):
        parts.append(f"without {', '.join(ranking['exclude'])}")
    if ranking.get("exclude_always_active"):
        parts.append("without always active neurons")
    return ", ".join(parts)


# What was done


def ingested(report: IngestReport) -> RenderableType:
    """What an ingest did: images, accuracy, what was left out and why, the graphs."""
    new = f"{report.new:,} new" if report.new else "none new"
    parts: list[RenderableType] = [
        Text(
            f"{plain(str(report.atlas))}: {plural(report.images, 'image')} ({new}), "
            f"{report.counted:,} of them in {plural(report.classes, 'class')}.",
            "bold",
        )
    ]
    if report.top1 is not None:
        parts.append(
            _paragraph(
                f"The model's first answer is right for {percent(report.top1)} of the labelled "
                f"images (top-1), one of its first five for {percent(report.top5)} (top-5)."
            )
        )
    parts.append(ranked(report.ranking))
    if report.without_class:
        parts.append(
            _paragraph(
                f"{plural(report.without_class, 'image')} belong to no class and count nowhere."
            )
        )
    if report.passed_over:
        parts.append(
            _paragraph(f"{plural(report.passed_over, 'file')} among them: no images, passed over.")
        )
    if report.left_out:
        table = _columns("", "", wide=1)
        for left_out in report.left_out[:_NAMED]:
            table.add_row(plain(left_out.status), plain(left_out.path))
        parts += [
            Text(f"{plural(len(report.left_out), 'image')} left out:", "bold"),
            _indented(table),
        ]
        if len(report.left_out) > _NAMED:
            rest = len(report.left_out) - _NAMED
            parts.append(_indented(Text(f"and {rest:,} more (--json lists all)", "dim")))
    return Group(*parts)


def ranked(report: RankReport) -> RenderableType:
    """What a ranking found: sizes of the graphs, and what needs a look."""
    parts: list[RenderableType] = []
    if report.with_graph:
        parts.append(
            _paragraph(
                f"{plural(report.with_graph, 'attribution graph')} of {_spread(report.neurons)} "
                f"neurons and {_spread(report.edges)} edges."
            )
        )
    if report.empty:
        parts.append(_paragraph(f"Without a graph: {_some(report.empty)}."))
    if report.not_converged:
        parts.append(_paragraph(f"Not converged: {_some(report.not_converged)}."))
    if report.unconnected:
        layers = sorted({layer for found in report.unconnected.values() for layer in found})
        parts.append(
            _paragraph(
                f"No earlier layer feeds {_some(layers)} in "
                f"{plural(len(report.unconnected), 'class')}: {_some(tuple(report.unconnected))}."
            )
        )
    if report.unplaced:
        classes = sorted({name for found in report.unplaced.values() for name in found})
        parts.append(
            _paragraph(
                f"Not in the embedding of {_some(tuple(report.unplaced))}, where no neuron is "
                f"active for them: {_some(classes)}."
            )
        )
    if report.always_active:
        parts.append(_paragraph(f"Active nearly always: {_some(report.always_active)}."))
    return Group(*parts)


def imported(report: ImportReport) -> RenderableType:
    """What an import of published graphs did: how many, their sizes, what was left out and why."""
    parts: list[RenderableType] = [
        Text(
            f"{plain(str(report.atlas))}: {plural(report.classes, 'attribution graph')} of "
            f"{_spread(report.neurons)} neurons and {_spread(report.edges)} edges.",
            "bold",
        )
    ]
    if report.already:
        parts.append(_paragraph("It was there already, the same; nothing was written."))
    if report.left_out:
        table = _columns("", "", wide=1)
        for left_out in report.left_out[:_NAMED]:
            table.add_row(plain(left_out.path.rpartition("/")[2]), plain(left_out.reason))
        parts += [Text(f"{plural(len(report.left_out), 'file')} left out:", "bold")]
        parts.append(_indented(table))
        if len(report.left_out) > _NAMED:
            rest = len(report.left_out) - _NAMED
            parts.append(_indented(Text(f"and {rest:,} more (--json lists all)", "dim")))
    return Group(*parts)


def _spread(numbers: tuple[int, float, int]) -> str:
    low, mean, high = numbers
    return f"{low}" if low == high else f"{low} to {high} (mean {mean:.1f})"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(plain(name) for name in names[:_NAMED]) + more


# A model


def layers(network: Network, name: str, everything: Sequence[Choice] | None) -> RenderableType:
    """The layers of a network with their shapes, the hidden ones, and the hops between them.

    everything: what could be chosen besides; None leaves it out.
    """
    chosen = len(network.chosen)
    parts: list[RenderableType] = [
        Text(
            f"{plain(name)}: {plural(chosen, 'chosen layer')} with "
            f"{plural(sum(layer.channels for layer in network.chosen), 'neuron')}, "
            f"{plural(len(network.layers) - chosen, 'hidden layer')}, "
            f"{plural(len(network.hops), 'hop')}, {plural(network.outputs, 'output')}.",
            "bold",
        ),
        _paragraph(f"Sizes are for an image of {_size(network.shape)} (channels, height, width)."),
        "",
    ]
    table = _columns("", "", "", wide=0)
    table.add_row("layer", "size", "", style="bold")
    for layer in network.layers:
        table.add_row(
            layer.name,
            _size((layer.channels, layer.height, layer.width)),
            "" if layer.chosen else "hidden",
            style="" if layer.chosen else "dim",
        )
    parts += [table, ""]
    table = _columns("", "", "", "", wide=3)
    table.add_row("from", "", "to", "mixed by", style="bold")
    for hop in network.hops:
        table.add_row(
            network.layers[hop.source].name,
            "→",
            network.layers[hop.target].name,
            ", ".join(hop.mixers) if hop.mixers else "nothing: passed on or added as it is",
        )
    parts.append(table)
    if everything is not None:
        picked = {layer.name for layer in network.chosen}
        table = _columns("", "", "", wide=0)
        table.add_row("everything that --layers can name", "size", "", style="bold")
        for choice in everything:
            table.add_row(
                choice.name,
                _size((choice.channels, choice.height, choice.width)),
                "chosen" if choice.name in picked else "",
            )
        parts += ["", table]
    return Group(*parts)


def _size(numbers: Sequence[int]) -> str:
    return " × ".join(str(number) for number in numbers)


def trace_check(complete: Sequence[Any], sources: Sequence[Any]) -> RenderableType:
    """The two tests of a trace (`network/check.py`), a row for each layer."""
    faults = [test for test in (*complete, *sources) if not test.holds]
    table = _columns("", "", "", wide=0)
    table.add_row("layer", "adds up", "traced", style="bold")
    added = {test.target: test for test in complete}
    traced = {test.layer: test for test in sources}
    for name in {**traced, **added}:
        table.add_row(name, _adds_up(added.get(name)), _traced(traced.get(name)))
    verdict = (
        "The trace is right: every layer's terms add up to it, and every neuron reaches only what "
        "it is traced to."
        if not faults
        else f"The trace is wrong in {plural(len(faults), 'place')}."
    )
    return Group(Text(verdict, "bold"), "", table)


def _adds_up(test: Any) -> str:
    if test is None:
        return "-"
    error = test.difference / test.scale if test.scale else test.difference
    skipped = f", {test.skipped} channels not defined" if test.skipped else ""
    return f"{'yes' if test.holds else 'NO'} (error {error:.1e}{skipped})"


def _traced(test: Any) -> str:
    if test is None:
        return "-"
    return f"{'yes' if test.holds else 'NO'} ({plural(test.strays, 'stray')})"
