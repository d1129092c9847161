"""What the pages know of an atlas, as JSON, read from its tables in bulk.

Tables are read once, whatever the number of classes; the edges, the largest, a part at a time.
`pages` says how the data reach the page; `page/data.js` lists them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from summit_graph.atlas.atlas import Atlas
from summit_graph.atlas.generation import Generation
from summit_graph.atlas.interface import ClassRecord, ExampleRecord
from summit_graph.errors import AtlasError

FORMAT = 1
"""Format of the data, which `page/` reads."""

CLASSES_OF_NEURON = 30
"""Classes listed of those whose attribution graph has a neuron, at most."""

SIMILAR = 50
"""Nearest classes of a class in a layer, at most."""

CONFUSED = 3
"""Confusions of a class in the list of all classes, at most."""

Integers = npt.NDArray[np.int64]

Confusions = Sequence[Sequence[Sequence[int]]]
"""Of each class, by place, [index of the other class or -1, images], the most frequent first."""


class ClassGraphs:
    """The attribution graphs of all classes, as columns.

    A row is a neuron of a class's graph; rows are sorted by class, then rank. Classes and layers
    are places: of the class in `records`, of the layer in `layers`. A neuron's `key` counts the
    neurons of all layers.
    """

    def __init__(self, atlas: Atlas) -> None:
        self.generation = atlas.generation
        self.records = atlas.classes
        self.layers = atlas.layers
        self._indices = np.array([record.index for record in self.records], np.int64)
        self._starts = np.cumsum([0, *(layer.channels for layer in self.layers)])
        numbers = [layer.number for layer in self.layers]
        self._places = np.full(max([*numbers, -1]) + 2, -1, np.int64)
        self._places[numbers] = np.arange(len(numbers))

        ranks = self.generation.table("ranks", pc.field("selected"))
        order = np.lexsort((ranks.column("rank"), ranks.column("class")))
        ranks = ranks.take(order)
        self.class_place = self.class_places(ranks)
        self.layer_place = self.layer_places(ranks)
        self.channel = _column(ranks, "channel")
        self.pagerank = np.asarray(ranks.column("pagerank"), np.float64)
        self.rank = _column(ranks, "rank")
        self.key = self.keys(ranks)
        self.bounds = np.searchsorted(self.class_place, np.arange(len(self.records) + 1))

        codes = self.class_place * self._starts[-1] + self.key
        self._order = np.argsort(codes)
        self._codes = codes[self._order]
        self.count = self._counts("activations")
        self.votes = self._counts("votes") if self.generation.has("votes") else None

    def class_places(self, table: pa.Table) -> Integers:
        """The place of each row's class."""
        return np.searchsorted(self._indices, _column(table, "class"))

    def layer_places(self, table: pa.Table, layer: str = "layer") -> Integers:
        """The place of each row's layer, -1 of one that is not chosen or null."""
        numbers = np.asarray(table.column(layer).cast(pa.int64()).fill_null(-1))
        places: Integers = self._places[np.clip(numbers, -1, len(self._places) - 1)]
        return places

    def keys(self, table: pa.Table, layer: str = "layer", channel: str = "channel") -> Integers:
        """The key of each row's neuron, -1 of one whose layer is not chosen."""
        places = self.layer_places(table, layer)
        return np.where(places >= 0, self._starts[places] + _column(table, channel), -1)

    def _rows(self, table: pa.Table, layer: str = "layer", channel: str = "channel") -> Integers:
        """The row of each neuron named in a table with a class, -1 if it is in no graph."""
        keys = self.keys(table, layer, channel)
        codes = self.class_places(table) * self._starts[-1] + keys
        found = np.full(len(codes), -1, np.int64)
        at = np.searchsorted(self._codes, codes)
        inside = (keys >= 0) & (at < len(self._codes))
        inside[inside] = self._codes[at[inside]] == codes[inside]
        found[inside] = self._order[at[inside]]
        return found

    def _counts(self, name: str) -> Integers:
        found = np.zeros(len(self.key), np.int64)
        for batch in _batches(self.generation, name):
            rows = self._rows(batch)
            inside = rows >= 0
            found[rows[inside]] = _column(batch, "count")[inside]
        return found

    @cached_property
    def edges(self) -> tuple[Integers, Integers, Integers, Integers]:
        """Source row, target row and count of the edges, and where each class's start.

        By class, then count, the highest first, then the neurons' layers and channels.
        """
        parts: list[tuple[Integers, ...]] = [(np.zeros(0, np.int64),) * 3]
        for batch in _batches(self.generation, "edges"):
            sources = self._rows(batch, "source_layer", "source")
            targets = self._rows(batch, "target_layer", "target")
            inside = (sources >= 0) & (targets >= 0)
            parts.append((sources[inside], targets[inside], _column(batch, "count")[inside]))
        source, target, count = (np.concatenate(column) for column in zip(*parts, strict=True))
        classes = self.class_place[source]
        order = np.lexsort((-count, classes))
        bounds = np.searchsorted(classes, np.arange(len(self.records) + 1))
        return source[order], target[order], count[order], bounds

    @cached_property
    def by_neuron(self) -> dict[int, Integers]:
        """The rows of each neuron by key: the classes whose graph has it, by PageRank, share."""
        images = np.array([record.images or 0 for record in self.records], np.float64)
        share = self.count / np.maximum(images[self.class_place], 1)
        order = np.lexsort((self.class_place, -share, -self.pagerank, self.key))
        keys, starts = np.unique(self.key[order], return_index=True)
        return dict(zip(keys.tolist(), np.split(order, starts[1:]), strict=True))

    def place_of(self, key: int) -> tuple[int, int]:
        """The place of its layer, and the channel, of a neuron that is in some graph."""
        row = self.by_neuron[key][0]
        return int(self.layer_place[row]), int(self.channel[row])


def _column(table: pa.Table, name: str) -> Integers:
    return np.asarray(table.column(name).cast(pa.int64()))


def _batches(generation: Generation, name: str) -> Iterator[pa.RecordBatch]:
    """A table, a part at a time. Raises: AtlasError."""
    if not generation.has(name):
        generation.table(name)
    try:
        yield from pq.ParquetFile(generation.path(name)).iter_batches()
    except (OSError, pa.ArrowInvalid) as error:
        raise AtlasError(f"{generation.path(name)} cannot be read: {error}.") from error


def as_json(value: Any) -> str:
    """JSON that is ASCII and has no `<`, so that no name in it can end a script or begin one."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _short(value: float, digits: int = 6) -> float | None:
    """A number to so many digits; None where it is none."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def overview(atlas: Atlas, graphs: ClassGraphs, confused: Confusions | None) -> dict[str, Any]:
    """The model, its layers and all classes, as columns. confused: as `confusions` gives it."""
    info = atlas.info()
    identity, ranking = info["identity"], info.get("ranking") or {}
    records = graphs.records
    images = None if atlas.partial else sum(record.images or 0 for record in records)
    sizes = np.diff(graphs.bounds)
    edge_numbers = np.diff(graphs.edges[3])
    model, dataset = info["model"], info["dataset"]
    with_graph = [place for place in range(len(records)) if sizes[place]] or [0]
    start = max(with_graph, key=lambda place: (records[place].images or 0, -place))
    return {
        "format": FORMAT,
        "title": f"{model['name']}, {dataset['name']}",
        "model": {"name": model["name"], "weights": model.get("weights")},
        "dataset": dataset["name"],
        "images": images,
        "top1": _overall(records, "top1"),
        "top5": _overall(records, "top5"),
        "partial": graphs.generation.partial,
        "grouping": identity["grouping"],
        "layers": [
            {
                "name": layer.name,
                "channels": layer.channels,
                "height": layer.height,
                "width": layer.width,
            }
            for layer in graphs.layers
        ],
        "parameters": {
            "mass": identity["parameters"].get("mass"),
            "topSources": identity["parameters"].get("k"),
            "examples": identity["parameters"].get("examples"),
        },
        "ranking": {"mass": ranking.get("mass"), "damping": ranking.get("damping")},
        "classes": {
            "index": [record.index for record in records],
            "name": [record.name for record in records],
            "synset": [record.synset for record in records],
            "images": [record.images for record in records],
            "top1": [record.top1 and _short(record.top1) for record in records],
            "top5": [record.top5 and _short(record.top5) for record in records],
            "probability": [record.probability for record in records],
            "neurons": sizes.tolist(),
            "edges": edge_numbers.tolist(),
            "confused": [
                None
                if confused is None
                else [found for found in confused[place] if found[0] >= 0][:CONFUSED]
                for place in range(len(records))
            ],
        },
        "start": records[start].index,
    }


def _overall(records: Sequence[ClassRecord], field: str) -> float | None:
    """The share of right answers over all judged images, 0 to 1; None without any."""
    judged = [
        (getattr(record, field), sum(record.probability))
        for record in records
        if getattr(record, field) is not None and record.probability
    ]
    images = sum(number for _, number in judged)
    return _short(sum(share * number for share, number in judged) / images) if images else None


def examples(graphs: ClassGraphs) -> dict[int, list[ExampleRecord]]:
    """The dataset examples of each neuron of a graph, by key."""
    generation = graphs.generation
    if not generation.has("examples"):
        return {}
    table = generation.table("examples", pc.field("class").is_null())
    key = graphs.keys(table)
    inside = np.isin(key, np.fromiter(graphs.by_neuron, np.int64))
    table, key = table.filter(pa.array(inside)), key[inside]
    numbers = pc.unique(table.column("image"))
    images = generation.table("images", pc.field("image").isin(numbers), ["image", "path"])
    paths = dict(zip(*(column.to_pylist() for column in images.columns), strict=True))
    found: dict[int, list[ExampleRecord]] = {}
    for row, owner in zip(table.to_pylist(), key.tolist(), strict=True):
        found.setdefault(owner, []).append(
            ExampleRecord(
                row["rank"],
                row["image"],
                paths[row["image"]],
                row["activation"],
                row["row"],
                row["column"],
            )
        )
    return found


def similar(graphs: ClassGraphs) -> list[dict[str, Any]] | None:
    """The nearest classes of each class, overall and in each layer; None if they are not known."""
    if not graphs.generation.has("similarity"):
        return None
    table = graphs.generation.table("similarity")
    order = [("class", "ascending"), ("cosine", "descending"), ("other", "ascending")]
    table = table.sort_by(order)
    place = 1 + graphs.layer_places(table)
    classes = graphs.class_places(table)
    found: list[list[list[Any]]] = [
        [[] for _ in range(len(graphs.layers) + 1)] for _ in graphs.records
    ]
    for which, where, other, cosine in zip(
        classes.tolist(),
        place.tolist(),
        table.column("other").to_pylist(),
        table.column("cosine").to_pylist(),
        strict=True,
    ):
        nearest = found[which][where]
        if len(nearest) < SIMILAR:
            nearest.append([other, _short(cosine, 5)])
    return [{"overall": lists[0], "layers": lists[1:]} for lists in found]


def confusions(graphs: ClassGraphs) -> list[list[list[int]]] | None:
    """What each class is confused with, the most frequent first; None if it is not known."""
    if not graphs.generation.has("confusions"):
        return None
    order = [("class", "ascending"), ("count", "descending"), ("predicted", "ascending")]
    table = graphs.generation.table("confusions").sort_by(order)
    found: list[list[list[int]]] = [[] for _ in graphs.records]
    classes = graphs.class_places(table)
    for place, other, count in zip(
        classes.tolist(),
        table.column("predicted").to_pylist(),
        table.column("count").to_pylist(),
        strict=True,
    ):
        found[place].append([other, count])
    return found


def embedding(graphs: ClassGraphs) -> dict[str, Any] | None:
    """The classes as points in each layer, scaled to -1 to 1 over all layers; None without any."""
    if not graphs.generation.has("embedding"):
        return None
    table = graphs.generation.table("embedding")
    if not table.num_rows:
        return None
    layers = graphs.layer_places(table)
    classes = _column(table, "class")
    points = np.stack([np.asarray(table.column(name), np.float64) for name in "xy"], axis=1)
    low, high = points.min(axis=0), points.max(axis=0)
    half = max(float((high - low).max()) / 2, 1e-12)
    points = np.round((points - (low + high) / 2) / half, 4)
    known = {record.index for record in graphs.records}
    found = []
    for place in range(len(graphs.layers)):
        here = layers == place
        found.append(
            {
                "layer": place,
                "points": [
                    [index, *point]
                    for index, point in zip(
                        classes[here].tolist(), points[here].tolist(), strict=True
                    )
                ],
                "missing": sorted(known - set(classes[here].tolist())),
            }
        )
    return {"layers": found}


def neuron_text(
    graphs: ClassGraphs,
    key: int,
    listed: Sequence[ExampleRecord],
    *,
    feature: bool,
    diverse: int,
    patches: bool,
) -> str:
    """What every class says alike of a neuron, as the end of a JSON object.

    listed: its dataset examples. feature: whether it has a feature visualisation. diverse: how many
    diverse ones. patches: whether there are pictures of its examples.
    """
    rows = graphs.by_neuron[key]
    first = rows[:CLASSES_OF_NEURON]
    classes = [
        [graphs.records[place].index, rank, count]
        for place, rank, count in zip(
            graphs.class_place[first].tolist(),
            graphs.rank[first].tolist(),
            graphs.count[first].tolist(),
            strict=True,
        )
    ]
    told = {
        "classes": classes,
        "classesTotal": len(rows),
        "feature": feature,
        "diverse": diverse,
        "patches": patches,
        "examples": [
            {
                "path": example.path,
                "activation": _short(example.activation),
                "row": example.row,
                "column": example.column,
            }
            for example in listed
        ],
    }
    return as_json(told)[1:]


def class_text(
    graphs: ClassGraphs, place: int, texts: Mapping[int, str], rest: dict[str, Any]
) -> str:
    """What the page knows of a class, as JSON. rest: what is not of its graph."""
    record = graphs.records[place]
    first, last = graphs.bounds[place], graphs.bounds[place + 1]
    neurons = []
    for row in range(first, last):
        count = int(graphs.count[row])
        told = {
            "layer": int(graphs.layer_place[row]),
            "channel": int(graphs.channel[row]),
            "pagerank": _short(graphs.pagerank[row]),
            "rank": int(graphs.rank[row]),
            "count": count,
            "share": None if record.images is None else _short(count / max(record.images, 1)),
            "votes": None if graphs.votes is None else int(graphs.votes[row]),
        }
        neurons.append(f"{as_json(told)[:-1]},{texts[int(graphs.key[row])]}")
    source, target, count_of, bounds = graphs.edges
    here = slice(bounds[place], bounds[place + 1])
    edges = np.stack([source[here] - first, target[here] - first, count_of[here]], axis=1)
    after = as_json({"edges": edges.tolist(), **rest})[1:]
    return f'{{"index":{record.index},"neurons":[{",".join(neurons)}],{after}'
