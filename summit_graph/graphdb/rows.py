"""An atlas as the rows of its graph: one definition, for loading over Bolt and for bulk import.

1. `GraphRows` numbers the nodes of each label; `keys` has the key of each.
2. `tables` gives, kind by kind in the order of `model.NODES` and `model.RELATIONSHIPS`, Arrow
   tables: a column for each property, and for relationships the numbers of the nodes at both ends.
3. Large tables of the atlas are read a class, or some thousand rows, at a time; nothing large is
   kept. The same content gives the same rows in the same order, however its files are laid out.
4. `fingerprint` is a hash over that content: two atlases have the same one where they become the
   same graph.

Only chosen layers and their neurons are in the graph. What an atlas does not know is null. What
the numbers mean: docs/method.md, sections 2 to 6.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from summit_graph.atlas.atlas import Atlas
from summit_graph.atlas.schema import ATLAS_TABLES, canonical
from summit_graph.errors import AtlasError, UsageError
from summit_graph.graphdb.model import (
    EDGES,
    END,
    NODES,
    RELATIONSHIPS,
    START,
    Node,
    Relationship,
    class_key,
    image_key,
    layer_key,
    neuron_key,
)
from summit_graph.rank.stage import Ranking, excluded

ROWS_VERSION = 2
"""Of this definition; part of the fingerprint, so that a graph of another one is loaded anew."""

_NEEDED = ("layers", "classes", "activations", "edges", "ranks", "selections")
"""The tables without which there is no graph to load."""

_READ = (*_NEEDED, "images", "examples", "votes", "confusions", "similarity", "embedding")
"""The tables that the graph is made of."""

_TOLD = ("key", "name", "model", "dataset", "identity", "ranking", "always_active", "partial")
"""What of the atlas's description is in the graph."""

_CHUNK = 65_536
"""Rows that are read at a time where a table is not read class by class."""

_NO_CLASS = -1

Kind = Node | Relationship
Numbers = npt.NDArray[np.int64]


class GraphRows:
    """The rows of an atlas.

    atlas: a ranked one. edges: one of `model.EDGES`.
    Raises: AtlasError if the atlas is not ranked; UsageError if `edges` is none of these.
    """

    def __init__(self, atlas: Atlas, edges: str = "graph") -> None:
        if edges not in EDGES:
            raise UsageError(f"edges is {edges!r}; it has to be {' or '.join(map(repr, EDGES))}.")
        self.atlas = atlas
        self.edges = edges
        self.generation = atlas.generation
        missing = [name for name in _NEEDED if not self.generation.has(name)]
        if missing:
            raise AtlasError(
                f"{atlas.path} has no table {missing[0]!r}: it is not ranked yet. "
                f"Run `summit-graph rank {atlas.path}` on it, then load it."
            )
        self.key: str = self.generation.header["key"]

    @property
    def identity(self) -> str:
        """What the atlas is of (network, weights, layers, grouping, classes, data set), as a hash;
        the same after images were added, or after another ranking."""
        header = self.generation.header
        return _digest({"identity": header["identity"], "dataset": header["dataset"]["name"]})

    @cached_property
    def fingerprint(self) -> str:
        """The content that the graph is made of, as a hash. Reads the tables once."""
        told = {name: self.generation.header.get(name) for name in _TOLD}
        contents = {name: self._content(name) for name in _READ if self.generation.has(name)}
        return _digest({"rows": ROWS_VERSION, "told": told, "contents": contents})

    def _content(self, name: str) -> list[str]:
        """Hashes over a table: some for each column, whatever the chunks it is read in."""
        hashes: defaultdict[tuple[int, int], Any] = defaultdict(hashlib.sha256)
        for table in self._chunks(name):
            for column, values in enumerate(table.columns):
                for part, content in enumerate(_parts(values.combine_chunks())):
                    hashes[column, part].update(content)
        return [found.hexdigest() for _, found in sorted(hashes.items())]

    @cached_property
    def model(self) -> dict[str, Any]:
        """The properties of the node `Model` but `loaded`; None is null."""
        header = self.generation.header
        ranking = header.get("ranking") or {}
        images = 0
        for table in self._chunks("images"):
            images += pc.sum(pc.equal(table.column("status"), "ok")).as_py()
        return {
            "key": self.key,
            "name": header["name"],
            "spec": header["model"].get("spec"),
            "weights": header["identity"]["weights_hash"] or None,
            "dataset": header["dataset"]["name"],
            "grouping": header["identity"]["grouping"],
            "images": images or None,
            "mass": ranking.get("mass"),
            "damping": ranking.get("damping"),
            "edges": self.edges,
            "embedding": True if self.generation.has("embedding") else None,
            "identity": self.identity,
            "fingerprint": self.fingerprint,
            "partial": True if header.get("partial") else None,
            "summit_graph": header["summit_graph"] or None,
        }

    @cached_property
    def keys(self) -> Mapping[str, pa.StringArray]:
        """Label -> the key of each node, by number."""
        found = {
            "Model": [self.key],
            "Layer": [layer_key(self.key, layer.name) for layer in self.atlas.layers],
            "Neuron": [
                neuron_key(self.key, layer.name, channel)
                for layer in self.atlas.layers
                for channel in range(layer.channels)
            ],
            "Class": [class_key(self.key, index) for index in self._classes.to_pylist()],
            "Image": [image_key(self.key, image) for image in self._images.tolist()],
        }
        return {label: pa.array(keys, pa.string()) for label, keys in found.items()}

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """Label or type -> how many there are. Reads the tables once."""
        found = dict.fromkeys([*NODES, *RELATIONSHIPS], 0)
        for kind, table in self.tables():
            found[kind.label if isinstance(kind, Node) else kind.type] += table.num_rows
        return found

    def tables(self) -> Iterator[tuple[Kind, pa.Table]]:
        """All rows, kind by kind, in tables of any number of rows.

        Nodes have the columns of `Node.properties`, by number. Relationships have `START` and `END`
        (numbers, int64), then `Relationship.properties`, where text may be dictionary-encoded.
        """
        nodes = {
            "Model": self._model,
            "Layer": self._layers,
            "Neuron": self._neurons,
            "Class": self._class_nodes,
            "Image": self._image_nodes,
        }
        relationships = {
            "HAS_LAYER": self._has_layer,
            "HAS_NEURON": self._has_neuron,
            "HAS_CLASS": self._has_class,
            "FEEDS": self._feeds,
            "ACTIVATES": self._activates,
            "RANKS": self._ranks,
            "ATTRIBUTES": self._attributes,
            "INFLUENCES": self._influences,
            "VOTES_FOR": self._votes_for,
            "SIMILAR_TO": self._similar_to,
            "PLACED_IN": self._placed_in,
            "CONFUSED_WITH": self._confused_with,
            "EXAMPLE": self._examples,
        }
        for node in NODES.values():
            for columns in nodes[node.label]():
                yield node, _table(columns, node.properties)
        for relationship in RELATIONSHIPS.values():
            for columns in relationships[relationship.type]():
                yield relationship, _table(columns, relationship.rows)

    # Nodes.

    def _model(self) -> Iterator[dict[str, Any]]:
        yield {name: [value] for name, value in {**self.model, "loaded": True}.items()}

    def _layers(self) -> Iterator[dict[str, Any]]:
        layers = self.atlas.layers
        yield {
            "key": self.keys["Layer"],
            "name": [layer.name for layer in layers],
            "index": [layer.number for layer in layers],
            "channels": [layer.channels for layer in layers],
            "height": [layer.height for layer in layers],
            "width": [layer.width for layer in layers],
        }

    def _neurons(self) -> Iterator[dict[str, Any]]:
        header = self.generation.header
        always = frozenset((layer, channel) for layer, channel in header.get("always_active") or [])
        ranking = header.get("ranking")
        left_out = (
            excluded(
                self.generation,
                Ranking(**{**ranking, "exclude": tuple(ranking.get("exclude", ()))}),
                always,
            )
            if ranking
            else frozenset()
        )
        neurons = [
            (layer.number, channel)
            for layer in self.atlas.layers
            for channel in range(layer.channels)
        ]
        names = {layer.number: layer.name for layer in self.atlas.layers}
        yield {
            "key": self.keys["Neuron"],
            "name": [f"{names[layer]}/{channel}" for layer, channel in neurons],
            "index": list(range(len(neurons))),
            "layer": [names[layer] for layer, _ in neurons],
            "channel": [channel for _, channel in neurons],
            "excluded": [True if neuron in left_out else None for neuron in neurons],
            "always_active": [True if neuron in always else None for neuron in neurons],
        }

    def _class_nodes(self) -> Iterator[dict[str, Any]]:
        with_none = {
            row["class"]: row["count"]
            for table in self._chunks("confusions")
            for row in table.filter(pc.equal(table.column("predicted"), _NO_CLASS)).to_pylist()
        }
        records = self.atlas.classes
        told = set(NODES["Class"].properties.names) - {"key", "confused_with_none"}
        found = {name: [getattr(record, name) for record in records] for name in told}
        for lists in ("probability", "unconnected"):
            found[lists] = [value or None for value in found[lists]]
        yield {
            "key": self.keys["Class"],
            **found,
            "confused_with_none": [with_none.get(record.index) for record in records],
        }

    def _image_nodes(self) -> Iterator[dict[str, Any]]:
        for whole in self._chunks("images"):
            table = whole.filter(pa.array(np.isin(whole.column("image"), self._images)))
            numbers = np.searchsorted(self._images, table.column("image"))
            yield {
                "key": self.keys["Image"].take(pa.array(numbers)),
                "index": table.column("image"),
                "path": table.column("path"),
            }

    # Relationships.

    def _has_layer(self) -> Iterator[dict[str, Any]]:
        layers = len(self.atlas.layers)
        yield {START: np.zeros(layers, np.int64), END: np.arange(layers)}

    def _has_neuron(self) -> Iterator[dict[str, Any]]:
        channels = [layer.channels for layer in self.atlas.layers]
        yield {START: np.repeat(np.arange(len(channels)), channels), END: np.arange(sum(channels))}

    def _has_class(self) -> Iterator[dict[str, Any]]:
        classes = len(self._classes)
        yield {START: np.zeros(classes, np.int64), END: np.arange(classes)}

    def _feeds(self) -> Iterator[dict[str, Any]]:
        layer_of = np.repeat(np.arange(len(self.atlas.layers)), np.diff(self._offsets))
        found: set[tuple[int, int]] = set()
        for edges in self._influences():
            pairs = np.stack([layer_of[edges[START]], layer_of[edges[END]]])
            found.update(map(tuple, np.unique(pairs, axis=1).T.tolist()))
        pairs = np.asarray(sorted(found), np.int64).reshape(-1, 2)
        yield {START: pairs[:, 0], END: pairs[:, 1]}

    def _activates(self) -> Iterator[dict[str, Any]]:
        for position, (table,) in self._by_class("activations"):
            yield {
                START: np.full(table.num_rows, position),
                END: self._neuron_numbers(table, "layer", "channel"),
                **self._counted(position, table),
            }

    def _ranks(self) -> Iterator[dict[str, Any]]:
        for position, (table,) in self._by_class("ranks"):
            yield {
                START: np.full(table.num_rows, position),
                END: self._neuron_numbers(table, "layer", "channel"),
                "pagerank": table.column("pagerank"),
                "rank": table.column("rank"),
            }

    def _attributes(self) -> Iterator[dict[str, Any]]:
        for position, (table, counted) in self._by_class("ranks", "activations"):
            chosen = table.filter(table.column("selected"))
            neurons = self._neuron_numbers(chosen, "layer", "channel")
            counts = np.zeros(int(self._offsets[-1]), np.int64)
            counts[self._neuron_numbers(counted, "layer", "channel")] = counted.column("count")
            yield {
                START: np.full(len(neurons), position),
                END: neurons,
                "pagerank": chosen.column("pagerank"),
                "rank": chosen.column("rank"),
                "count": counts[neurons],
            }

    def _influences(self) -> Iterator[dict[str, Any]]:
        for position, (table, ranks) in self._by_class("edges", "ranks"):
            ranks = ranks.filter(ranks.column("selected"))
            chosen = np.zeros(int(self._offsets[-1]), bool)
            chosen[self._neuron_numbers(ranks, "layer", "channel")] = True
            start = self._neuron_numbers(table, "source_layer", "source")
            end = self._neuron_numbers(table, "target_layer", "target")
            selected = chosen[start] & chosen[end]
            if self.edges == "attribution":
                table = table.filter(pa.array(selected))
                start, end, selected = start[selected], end[selected], selected[selected]
            key = np.full(table.num_rows, position, np.int32)
            yield {
                START: start,
                END: end,
                "class": pa.DictionaryArray.from_arrays(key, self.keys["Class"]),
                **self._counted(position, table),
                "selected": pa.array(selected, mask=~selected),
            }

    def _votes_for(self) -> Iterator[dict[str, Any]]:
        for position, (table,) in self._by_class("votes"):
            yield {
                START: self._neuron_numbers(table, "layer", "channel"),
                END: np.full(table.num_rows, position),
                **self._counted(position, table),
            }

    def _similar_to(self) -> Iterator[dict[str, Any]]:
        names = pa.array([layer.name for layer in self.generation.layers], pa.string())
        for table in self._chunks("similarity"):
            yield {
                START: self._class_numbers(table.column("class")),
                END: self._class_numbers(table.column("other")),
                "cosine": table.column("cosine"),
                "layer": names.take(table.column("layer")),
            }

    def _placed_in(self) -> Iterator[dict[str, Any]]:
        for whole in self._chunks("embedding"):
            table = self._of_chosen_layers(whole)
            yield {
                START: self._class_numbers(table.column("class")),
                END: self._place[np.asarray(table.column("layer"))],
                "x": table.column("x"),
                "y": table.column("y"),
            }

    def _confused_with(self) -> Iterator[dict[str, Any]]:
        for position, (table,) in self._by_class("confusions"):
            known = table.filter(pc.not_equal(table.column("predicted"), _NO_CLASS))
            yield {
                START: np.full(known.num_rows, position),
                END: self._class_numbers(known.column("predicted")),
                **self._counted(position, known),
            }

    def _examples(self) -> Iterator[dict[str, Any]]:
        for whole in self._chunks("examples"):
            table = self._of_chosen_layers(whole)
            of_class = self._class_numbers(table.column("class"))
            yield {
                START: self._neuron_numbers(table, "layer", "channel"),
                END: np.searchsorted(self._images, table.column("image")),
                "rank": table.column("rank"),
                "activation": table.column("activation"),
                "row": table.column("row"),
                "column": table.column("column"),
                "class": pa.DictionaryArray.from_arrays(of_class, self.keys["Class"]),
            }

    # The numbers of nodes.

    @cached_property
    def _offsets(self) -> Numbers:
        """(chosen layers + 1,): the number of the first neuron of each, then that of neurons."""
        return np.cumsum([0, *(layer.channels for layer in self.atlas.layers)], dtype=np.int64)

    @cached_property
    def _place(self) -> Numbers:
        """(layers,): the place of each among the chosen ones, -1 for the others."""
        place = np.full(len(self.generation.layers), -1, np.int64)
        place[[layer.number for layer in self.atlas.layers]] = np.arange(len(self.atlas.layers))
        return place

    @cached_property
    def _classes(self) -> pa.Array:
        """The index of each class."""
        return pa.array([record.index for record in self.atlas.classes], pa.int32())

    @cached_property
    def _images(self) -> Numbers:
        """The images that are examples, by rising number."""
        found = np.zeros(0, np.int64)
        for table in self._chunks("examples"):
            chosen = self._of_chosen_layers(table)
            found = np.union1d(found, chosen.column("image"))
        return found

    def _neuron_numbers(self, table: pa.Table, layer: str, channel: str) -> Numbers:
        first = self._offsets[self._place[np.asarray(table.column(layer))]]
        return np.asarray(first + np.asarray(table.column(channel)))

    def _class_numbers(self, indices: pa.ChunkedArray) -> pa.Array:
        """(n,) indices of classes as numbers, null as null."""
        return pc.index_in(indices.combine_chunks(), self._classes)

    # The atlas's tables.

    def _by_class(self, *names: str) -> Iterator[tuple[int, list[pa.Table]]]:
        """Each class's number and its rows of some tables, for the classes that the first one has.

        The tables are read side by side, once.
        """
        readers = [_ClassReader(name, self._chunks(name)) for name in names]
        for position, index in enumerate(self._classes.to_pylist()):
            found = [self._of_chosen_layers(reader.take(index)) for reader in readers]
            if found[0].num_rows:
                yield position, found

    def _of_chosen_layers(self, table: pa.Table) -> pa.Table:
        for column in ("layer", "source_layer", "target_layer"):
            if column in table.column_names:
                chosen = self._place[np.asarray(table.column(column))] >= 0
                table = table.filter(pa.array(chosen))
        return table

    def _chunks(self, name: str) -> Iterator[pa.Table]:
        """All rows of a table, some thousand at a time, however its file is laid out."""
        if not self.generation.has(name):
            return
        path = self.generation.path(name)
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(_CHUNK):
                    yield pa.Table.from_batches([batch]).cast(ATLAS_TABLES[name])
        except (OSError, pa.ArrowInvalid) as error:
            raise AtlasError(f"{path} cannot be read: {error}.") from error

    def _counted(self, position: int, table: pa.Table) -> dict[str, pa.Array]:
        """The columns `count` and `share` of rows of one class."""
        count = table.column("count")
        images = self.atlas.classes[position].images
        if not images:
            return {"count": count, "share": pa.nulls(table.num_rows, pa.float64())}
        return {"count": count, "share": np.asarray(count) / images}


class _ClassReader:
    """Takes the rows of one class after the other from a table sorted by class."""

    def __init__(self, name: str, chunks: Iterator[pa.Table]) -> None:
        self.chunks = chunks
        self.rest = ATLAS_TABLES[name].empty_table()

    def take(self, index: int) -> pa.Table:
        """The rows of a class; what comes before is gone then."""
        parts = []
        while True:
            classes = np.asarray(self.rest.column("class"))
            first, last = np.searchsorted(classes, [index, index + 1]).tolist()
            parts.append(self.rest.slice(first, last - first))
            self.rest = self.rest.slice(last)
            if self.rest.num_rows:
                break
            chunk = next(self.chunks, None)
            if chunk is None:
                break
            self.rest = chunk
        return pa.concat_tables(parts)


def _table(columns: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    arrays = [
        column if isinstance(column, pa.DictionaryArray) else _array(column, field.type)
        for field, column in ((field, columns[field.name]) for field in schema)
    ]
    return pa.table(arrays, schema.names)


def _array(column: Any, kind: pa.DataType) -> Any:
    if isinstance(column, pa.Array | pa.ChunkedArray):
        return column.cast(kind)
    return pa.array(column, kind)


def _parts(column: pa.Array) -> Iterator[bytes]:
    """The content of a column as parts: which are null, how long each is, the values themselves;
    whatever lies below its nulls and around its slice. Chunk by chunk each part goes on."""
    yield np.asarray(column.is_null()).tobytes()
    if pa.types.is_list(column.type):
        yield np.asarray(pc.list_value_length(column).fill_null(0)).tobytes()
        yield from _parts(column.flatten())
    elif pa.types.is_string(column.type):
        yield np.asarray(pc.binary_length(column).fill_null(0)).tobytes()
        yield "".join(column.drop_null().to_pylist()).encode()
    else:
        empty = pa.scalar(False if pa.types.is_boolean(column.type) else 0, column.type)
        yield np.ascontiguousarray(column.fill_null(empty)).tobytes()


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode("utf-8", "surrogatepass")).hexdigest()
