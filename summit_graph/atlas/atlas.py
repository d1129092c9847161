"""Reads an atlas: classes, attribution graphs, neurons, examples, from its Parquet tables alone.

1. `Atlas.open` takes the set of tables that counts at that moment and holds on to it: all answers
   of one `Atlas` fit each other, though a run may put new tables in place meanwhile.
2. Each question reads the rows of one class or one neuron; nothing large is kept.

It needs neither a server nor the model. Source of what the numbers mean: docs/method.md, sections
2 to 6.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from summit_graph.atlas.generation import Generation, hold, locate
from summit_graph.atlas.interface import (
    AttributionGraph,
    ClassPoint,
    ClassRecord,
    Comparison,
    Confusion,
    EdgeRecord,
    ExampleRecord,
    Neighbourhood,
    NeuronInClass,
    NeuronRecord,
    NeuronView,
    SimilarClass,
    Vote,
    compared,
    find_class,
    find_layer,
    find_neuron,
    no_embedding,
    not_known,
    share_of,
)
from summit_graph.atlas.schema import LayerEntry
from summit_graph.errors import AtlasError


class Atlas:
    """An atlas on disk, read only. Made by `Atlas.open`; a context manager.

    path: its folder. generation: its tables, for what no method here answers.
    """

    def __init__(self, path: Path, generation: Generation, descriptor: int) -> None:
        self.path = path
        self.generation = generation
        self._descriptor: int | None = descriptor

    @classmethod
    def open(cls, path: str | Path) -> Atlas:
        """Opens the atlas in a folder.

        A partial atlas, imported from published graphs, is opened as well.

        Raises: AtlasError if the folder is no atlas, if its images are not counted yet, or if a
        newer version of summit-graph made it, each with what to do.
        """
        folder = Path(path)
        descriptor = None
        while descriptor is None:
            tables = locate(folder)
            descriptor = hold(tables)
        try:
            generation = Generation(tables)
            if not (generation.complete or generation.partial):
                raise AtlasError(
                    f"the images of {folder} are not counted yet. "
                    "Run the same `summit-graph ingest` again to go on."
                )
        except BaseException:
            os.close(descriptor)
            raise
        return cls(folder, generation, descriptor)

    def close(self) -> None:
        """Lets the tables go that were current when it was opened."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Atlas:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def info(self) -> dict[str, Any]:
        """What `atlas.json` says: `format`, `key`, `name`, `model`, `dataset`, `identity`, ….

        `identity` holds layers, hops, grouping, parameters, preprocessing and classes; `ranking`
        how the atlas was ranked, if it was; `tables` the names of the tables that are there.
        """
        return {**self.generation.header, "tables": list(self.generation.tables())}

    @property
    def partial(self) -> bool:
        """Whether it holds published attribution graphs alone; see `interface`."""
        return self.generation.partial is not None

    @cached_property
    def layers(self) -> tuple[LayerEntry, ...]:
        """The chosen layers, in the order of the forward pass."""
        return tuple(layer for layer in self.generation.layers if layer.chosen)

    @cached_property
    def classes(self) -> tuple[ClassRecord, ...]:
        """All classes, by index."""
        rows = self.generation.table("classes").to_pylist()
        chosen: dict[int, dict[str, Any]] = {}
        if self.generation.has("selections"):
            selections = self.generation.table("selections").to_pylist()
            chosen = {row["class"]: row for row in selections}
        return tuple(self._record(row, chosen.get(row["class"])) for row in rows)

    def _record(self, row: dict[str, Any], selection: dict[str, Any] | None) -> ClassRecord:
        found = selection or {}
        unconnected = found.get("unconnected")
        return ClassRecord(
            index=row["class"],
            name=row["name"],
            synset=row["synset"],
            images=row["images"],
            top1=row["top1"],
            top5=row["top5"],
            probability=None if row["probability"] is None else tuple(row["probability"]),
            neurons=found.get("neurons"),
            edges=found.get("edges"),
            mass=found.get("mass"),
            threshold=found.get("threshold"),
            converged=found.get("converged"),
            unconnected=(
                None
                if unconnected is None
                else tuple(self._layer_names[number] for number in unconnected)
            ),
        )

    @cached_property
    def _layer_names(self) -> dict[int, str]:
        return {layer.number: layer.name for layer in self.generation.layers}

    def find(self, name: str | int) -> ClassRecord:
        """The class that `name` means: an index, a name, a synset or a part of a name.

        Raises: UnknownClass if none fits (the nearest are listed) or several do; see `find_class`.
        """
        return find_class(self.classes, name)

    def attribution_graph(self, name: str | int) -> AttributionGraph:
        """The attribution graph of a class (docs/method.md, section 5).

        name: as `find` takes it. Raises: UnknownClass; AtlasError if the atlas is not ranked.
        """
        record = self.find(name)
        ranks = self.generation.of_class("ranks", record.index)
        ranks = ranks.filter(ranks.column("selected")).sort_by("rank")
        counts = self._counts(record.index)
        neurons = tuple(
            NeuronRecord(
                name=self._name(row["layer"], row["channel"]),
                layer=self._layer_names[row["layer"]],
                channel=row["channel"],
                pagerank=row["pagerank"],
                rank=row["rank"],
                count=counts.get((row["layer"], row["channel"]), 0),
                share=share_of(counts.get((row["layer"], row["channel"]), 0), record.images),
            )
            for row in ranks.to_pylist()
        )
        kept = pa.array(_codes(ranks.column("layer"), ranks.column("channel")))
        edges = self.generation.of_class("edges", record.index)
        inside = pc.and_(
            pc.is_in(pa.array(_codes(edges.column("source_layer"), edges.column("source"))), kept),
            pc.is_in(pa.array(_codes(edges.column("target_layer"), edges.column("target"))), kept),
        )
        return AttributionGraph(record, neurons, self._edges(edges.filter(inside), record.images))

    def activations(self, name: str | int | None = None, layer: str | None = None) -> pa.Table:
        """In how many images neurons are active (docs/method.md, section 2).

        name: of one class (None: all). layer: of one chosen layer (None: all).
        Returns an Arrow table with columns class (index), layer (name), channel, count (images, 1
        and up), share (count / images of the class, null where those are not known), sorted by
        class, layer, channel.
        Raises: UnknownClass, UnknownLayer.
        """
        where = pc.field("layer").isin([entry.number for entry in self.layers])
        if layer is not None:
            where = pc.field("layer") == find_layer(self.layers, layer).number
        if name is not None:
            where = where & (pc.field("class") == self.find(name).index)
        table = self.generation.table("activations", where)
        images = {record.index: record.images for record in self.classes}
        of_class = np.array(
            [images.get(index, 0) for index in range(max(images, default=-1) + 1)], np.float64
        )
        total = of_class[table.column("class").to_numpy()] if table.num_rows else np.zeros(0)
        share = table.column("count").to_numpy() / np.maximum(total, 1)
        names = pa.array(
            [self._layer_names[number] for number in range(len(self._layer_names))], pa.string()
        )
        return pa.table(
            {
                "class": table.column("class"),
                "layer": names.take(table.column("layer")),
                "channel": table.column("channel"),
                "count": table.column("count"),
                "share": pa.array(share, from_pandas=True),
            }
        )

    def neuron(self, neuron: str) -> NeuronView:
        """The classes that a neuron matters to: those that rank it or have it active.

        neuron: like `inception4c/57`. Raises: UnknownNeuron; AtlasError if the atlas is not ranked.
        """
        layer, channel = find_neuron(self.layers, neuron)
        where = (pc.field("layer") == layer.number) & (pc.field("channel") == channel)
        ranks = {row["class"]: row for row in self.generation.table("ranks", where).to_pylist()}
        counts = {
            row["class"]: row["count"]
            for row in self.generation.table("activations", where).to_pylist()
        }
        views = []
        for record in self.classes:
            rank = ranks.get(record.index)
            count = counts.get(record.index, 0)
            if rank is None and not count:
                continue
            views.append(
                NeuronInClass(
                    index=record.index,
                    name=record.name,
                    pagerank=rank["pagerank"] if rank else None,
                    rank=rank["rank"] if rank else None,
                    selected=bool(rank and rank["selected"]),
                    count=count,
                    share=share_of(count, record.images),
                )
            )
        views.sort(
            key=lambda view: (
                not view.selected,
                -(view.pagerank or 0),
                -(view.share or 0),
                view.index,
            )
        )
        return NeuronView(neuron, layer.name, channel, tuple(views))

    def neighbours(self, neuron: str, name: str | int, limit: int = 10) -> Neighbourhood:
        """The strongest influences into and out of a neuron in a class's graph.

        They are edges of the whole graph `G_c` (docs/method.md, section 4), not only of the
        attribution graph, unless the atlas is partial; `limit` each way.
        Raises: UnknownNeuron, UnknownClass; AtlasError if the atlas is not ranked.
        """
        layer, channel = find_neuron(self.layers, neuron)
        record = self.find(name)
        edges = self.generation.of_class("edges", record.index)
        sides = []
        for side in ("target", "source"):
            here = pc.and_(
                pc.equal(edges.column(f"{side}_layer"), layer.number),
                pc.equal(edges.column(side), channel),
            )
            sides.append(self._edges(edges.filter(here), record.images)[:limit])
        return Neighbourhood(*sides)

    def compare(self, first: str | int, second: str | int) -> Comparison:
        """The neurons that the attribution graphs of two classes share, and those of one alone.

        Raises: UnknownClass; AtlasError if the atlas is not ranked.
        """
        return compared(self.attribution_graph(first), self.attribution_graph(second))

    def similar(
        self, name: str | int, layer: str | None = None, limit: int = 10
    ) -> tuple[SimilarClass, ...]:
        """The classes whose activations are nearest to one's, by cosine, the nearest first.

        layer: in one chosen layer (None: the mean over them). Source: docs/method.md, section 6.
        Raises: UnknownClass, UnknownLayer; AtlasError if similarities are not made yet.
        """
        record = self.find(name)
        place = pc.field("layer")
        here = place.is_null() if layer is None else place == find_layer(self.layers, layer).number
        self._require("similarity", "the classes nearest to one")
        table = self.generation.table("similarity", here & (pc.field("class") == record.index))
        rows = table.sort_by([("cosine", "descending"), ("other", "ascending")]).to_pylist()
        return tuple(
            SimilarClass(row["other"], self._class_names[row["other"]], row["cosine"])
            for row in rows[:limit]
        )

    def embedding(self, layer: str) -> tuple[ClassPoint, ...]:
        """Where the classes stand in a chosen layer: near each other if they activate alike.

        By index; a class that no neuron of the layer is active for has no place. All layers share
        their axes, so that places can be compared between them. Source: docs/method.md, section 6.
        Raises: UnknownLayer; AtlasError if the atlas has no embedding, or is partial.
        """
        number = find_layer(self.layers, layer).number
        self._require("embedding", "the places of classes")
        if not self.generation.has("embedding"):
            raise no_embedding()
        rows = self.generation.table("embedding", pc.field("layer") == number).to_pylist()
        return tuple(
            ClassPoint(row["class"], self._class_names[row["class"]], row["x"], row["y"])
            for row in rows
        )

    def confusions(self, name: str | int) -> tuple[Confusion, ...]:
        """What other classes a class's images are taken for, the most frequent first.

        Grouped by prediction: what they are instead. Raises: UnknownClass; AtlasError if the atlas
        is partial.
        """
        record = self.find(name)
        self._require("confusions", "the confusions of a class")
        table = self.generation.of_class("confusions", record.index)
        rows = table.sort_by([("count", "descending"), ("predicted", "ascending")]).to_pylist()
        return tuple(
            Confusion(
                row["predicted"],
                self._class_names.get(row["predicted"]),
                row["count"],
                share_of(row["count"], record.images),
            )
            for row in rows
        )

    def votes(self, name: str | int, limit: int | None = None) -> tuple[Vote, ...]:
        """The neurons of the last layers that speak for a class, the most frequent first.

        limit: how many at most (None: all). Source: docs/method.md, section 6.
        Raises: UnknownClass; AtlasError if the atlas is not ranked, or partial.
        """
        record = self.find(name)
        self._require("votes", "the votes for a class")
        table = self.generation.of_class("votes", record.index)
        rows = table.sort_by(
            [("count", "descending"), ("layer", "ascending"), ("channel", "ascending")]
        )
        return tuple(
            Vote(
                self._name(row["layer"], row["channel"]),
                self._layer_names[row["layer"]],
                row["channel"],
                row["count"],
                share_of(row["count"], record.images),
            )
            for row in rows.slice(0, limit).to_pylist()
        )

    def examples(self, neuron: str, name: str | int | None = None) -> tuple[ExampleRecord, ...]:
        """The images that excite a neuron most, the highest activation first.

        name: among the images of one class, where the atlas was counted so; None: among all.
        Raises: UnknownNeuron, UnknownClass; AtlasError if the atlas is partial.
        """
        layer, channel = find_neuron(self.layers, neuron)
        where = (pc.field("layer") == layer.number) & (pc.field("channel") == channel)
        place = pc.field("class")
        where = where & (place.is_null() if name is None else place == self.find(name).index)
        self._require("examples", "the images that excite a neuron")
        rows = self.generation.table("examples", where).sort_by("rank").to_pylist()
        numbers = sorted(row["image"] for row in rows)
        images = self.generation.table("images", pc.field("image").isin(numbers), ["image", "path"])
        paths = dict(zip(*(column.to_pylist() for column in images.columns), strict=True))
        return tuple(
            ExampleRecord(
                row["rank"],
                row["image"],
                paths[row["image"]],
                row["activation"],
                row["row"],
                row["column"],
            )
            for row in rows
        )

    @property
    def images(self) -> pa.Table:
        """All images, by number: the table `images`. Raises: AtlasError if the atlas is partial."""
        self._require("images", "the images")
        return self.generation.table("images")

    def _require(self, table: str, what: str) -> None:
        if self.partial and not self.generation.has(table):
            raise not_known(what)

    def _counts(self, index: int) -> dict[tuple[int, int], int]:
        return {
            (layer, channel): count
            for layer, (channels, counts) in self.generation.class_activations(index).items()
            for channel, count in zip(channels.tolist(), counts.tolist(), strict=True)
        }

    def _edges(self, edges: pa.Table, images: int | None) -> tuple[EdgeRecord, ...]:
        key = [name for name in edges.column_names if name not in ("class", "count")]
        rows = edges.sort_by([("count", "descending"), *((name, "ascending") for name in key)])
        return tuple(
            EdgeRecord(
                self._name(row["source_layer"], row["source"]),
                self._name(row["target_layer"], row["target"]),
                row["count"],
                share_of(row["count"], images),
            )
            for row in rows.to_pylist()
        )

    def _name(self, layer: int, channel: int) -> str:
        return f"{self._layer_names[layer]}/{channel}"

    @cached_property
    def _class_names(self) -> dict[int, str]:
        return {record.index: record.name for record in self.classes}


def _codes(layers: Iterable[Any], channels: Iterable[Any]) -> Any:
    """One int64 for each neuron: (n,) layers and (n,) channels."""
    return (np.asarray(layers).astype(np.int64) << 32) | np.asarray(channels).astype(np.int64)
