"""The tables of an atlas: their columns, their keys, and the description that goes with them.

1. `SHARD_TABLES` are written once per shard, while images are counted. Their rows are parts of
   sums: the same key may stand in many shards.
2. `ATLAS_TABLES` are what a reader sees. Each is sorted by its key, which is unique: the columns up
   to the first measure (`KEYS`). Null sorts before every number.
3. `Description` is what an atlas is of: model, layers, classes, parameters. Its `identity` is the
   part that has to be equal for counts to be added (docs/method.md, section 7: counts are additive
   over any split of the images, everything else being equal).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from summit_graph.errors import AtlasError

FORMAT_VERSION = 1
"""Format of the folder. A reader refuses an atlas with a higher one."""

ROW_GROUP = 65_536
"""Rows of a row group: one class of a large table is read by skipping the other groups."""

PROBABILITY_BINS = 10
"""Bins of the histogram of probability: [0, 0.1), [0.1, 0.2), … [0.9, 1]."""

EXAMPLES = 10
"""Dataset examples kept of each neuron, where the parameters do not say otherwise."""


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema(list(columns.items()))


SHARD_TABLES: Mapping[str, pa.Schema] = {
    "images": _schema(
        path=pa.string(),
        size=pa.int64(),
        hash=pa.string(),
        label=pa.int32(),
        **{"class": pa.int32()},
        predicted=pa.int32(),
        probability=pa.float32(),
        label_rank=pa.int32(),
        status=pa.string(),
    ),
    "activations": _schema(
        **{"class": pa.int32()}, layer=pa.int16(), channel=pa.int32(), count=pa.int32()
    ),
    "influences": _schema(
        **{"class": pa.int32()},
        hop=pa.int16(),
        source=pa.int32(),
        target=pa.int32(),
        count=pa.int32(),
    ),
    "votes": _schema(
        **{"class": pa.int32()}, layer=pa.int16(), channel=pa.int32(), count=pa.int32()
    ),
    "examples": _schema(
        **{"class": pa.int32()},
        layer=pa.int16(),
        channel=pa.int32(),
        path=pa.string(),
        activation=pa.float32(),
        row=pa.int32(),
        column=pa.int32(),
    ),
}
"""What counting hands over for a shard. On disk `images` and `examples` have one column more,
`part`: shards folded into one keep apart what they were, so that a path names one image of a part.
"""

ATLAS_TABLES: Mapping[str, pa.Schema] = {
    "layers": _schema(
        layer=pa.int16(),
        name=pa.string(),
        chosen=pa.bool_(),
        channels=pa.int32(),
        height=pa.int32(),
        width=pa.int32(),
    ),
    "hops": _schema(
        hop=pa.int16(), source=pa.int16(), target=pa.int16(), mixers=pa.list_(pa.string())
    ),
    "receptive_fields": _schema(
        layer=pa.int16(),
        top=pa.int32(),
        left=pa.int32(),
        row_step=pa.float64(),
        column_step=pa.float64(),
        height=pa.int32(),
        width=pa.int32(),
    ),
    "classes": _schema(
        **{"class": pa.int32()},
        name=pa.string(),
        synset=pa.string(),
        images=pa.int64(),
        top1=pa.float64(),
        top5=pa.float64(),
        probability=pa.list_(pa.int64()),
    ),
    "activations": SHARD_TABLES["activations"],
    "influences": SHARD_TABLES["influences"],
    "raw_votes": SHARD_TABLES["votes"],
    "edges": _schema(
        **{"class": pa.int32()},
        source_layer=pa.int16(),
        source=pa.int32(),
        target_layer=pa.int16(),
        target=pa.int32(),
        count=pa.int32(),
    ),
    "ranks": _schema(
        **{"class": pa.int32()},
        layer=pa.int16(),
        channel=pa.int32(),
        pagerank=pa.float64(),
        rank=pa.int32(),
        selected=pa.bool_(),
    ),
    "selections": _schema(
        **{"class": pa.int32()},
        mass=pa.float64(),
        threshold=pa.float64(),
        neurons=pa.int32(),
        edges=pa.int32(),
        iterations=pa.int32(),
        converged=pa.bool_(),
        unconnected=pa.list_(pa.int16()),
    ),
    "images": _schema(
        image=pa.int64(),
        path=pa.string(),
        size=pa.int64(),
        hash=pa.string(),
        label=pa.int32(),
        **{"class": pa.int32()},
        predicted=pa.int32(),
        probability=pa.float32(),
        label_rank=pa.int32(),
        status=pa.string(),
    ),
    "examples": _schema(
        **{"class": pa.int32()},
        layer=pa.int16(),
        channel=pa.int32(),
        rank=pa.int32(),
        image=pa.int64(),
        activation=pa.float32(),
        row=pa.int32(),
        column=pa.int32(),
    ),
    "votes": _schema(
        **{"class": pa.int32()}, layer=pa.int16(), channel=pa.int32(), count=pa.int32()
    ),
    "confusions": _schema(**{"class": pa.int32()}, predicted=pa.int32(), count=pa.int32()),
    "embedding": _schema(layer=pa.int16(), **{"class": pa.int32()}, x=pa.float64(), y=pa.float64()),
    "similarity": _schema(
        layer=pa.int16(), **{"class": pa.int32()}, other=pa.int32(), cosine=pa.float64()
    ),
}

KEYS: Mapping[str, tuple[str, ...]] = {
    "layers": ("layer",),
    "hops": ("hop",),
    "receptive_fields": ("layer",),
    "classes": ("class",),
    "activations": ("class", "layer", "channel"),
    "influences": ("class", "hop", "source", "target"),
    "raw_votes": ("class", "layer", "channel"),
    "edges": ("class", "source_layer", "source", "target_layer", "target"),
    "ranks": ("class", "layer", "channel"),
    "selections": ("class",),
    "images": ("image",),
    "examples": ("class", "layer", "channel", "rank"),
    "votes": ("class", "layer", "channel"),
    "confusions": ("class", "predicted"),
    "embedding": ("layer", "class"),
    "similarity": ("layer", "class", "other"),
}

COUNTED = (
    "layers",
    "hops",
    "receptive_fields",
    "classes",
    "activations",
    "influences",
    "raw_votes",
    "images",
    "examples",
    "confusions",
)
"""The tables made while images are counted: from the shards, and of the network. The others are
made from these by ranking and after."""

INTERNAL = frozenset({"raw_votes"})
"""Tables that the ranking needs and no reader: they get no link at the top of the atlas."""


class LayerEntry(NamedTuple):
    """A layer of the network, chosen or hidden, as the table `layers` holds it.

    height, width: pixels of its map at the model's input size; None if that is not known.
    """

    number: int
    name: str
    chosen: bool
    channels: int
    height: int | None
    width: int | None


class HopEntry(NamedTuple):
    """A pair of layers, by number, with at least one term between them; see docs/method.md,
    section 1. mixers: module names, empty for an identity alone; None if they are not known."""

    number: int
    source: int
    target: int
    mixers: tuple[str, ...] | None


class ReceptiveField(NamedTuple):
    """What the positions of a chosen layer see of the image, as `receptive_fields` holds it.

    In pixels of the model's input: position (row, column) of the layer's map sees `height` rows
    from `top + row * row_step` on and `width` columns from `left + column * column_step` on, as far
    as they lie within the image. height, width: None where every position sees all of it.
    """

    layer: int
    top: int
    left: int
    row_step: float
    column_step: float
    height: int | None
    width: int | None


@dataclass(frozen=True)
class ClassEntry:
    """A class that images are counted for, and the outputs of the model that belong to it."""

    index: int
    name: str
    synset: str | None
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Description:
    """What an atlas is of: everything that `atlas.json` says before an image is counted.

    key: names the atlas everywhere; see `default_key`. model: `name`, `spec` and whatever tells a
    reader where it came from. dataset: `name` and the same. classes: by rising index, and no output
    in two of them. grouping: `label` or `prediction`. parameters: what decides the counts:
    `batch_size` and `shard_size` (images), `mass`, `k`, `examples` (of each neuron), ….
    preprocessing: how a file becomes the model's input. version: of summit-graph, that made it.
    thumbnails: whether the atlas may hold small pictures of images (`atlas.thumbnails`).
    All of it JSON: text, finite numbers, true, false, null, lists and objects.

    partial: None of an atlas whose images are counted here; else why it lacks the images and counts
    of one (`atlas.summit`), the rest of a sentence about it. Such an atlas can be read, and neither
    counted into nor ranked nor merged; its weights_hash and grouping may be None and its parameters
    empty: not known.
    """

    key: str
    model: Mapping[str, Any]
    weights_hash: str | None
    dataset: Mapping[str, Any]
    layers: Sequence[LayerEntry]
    hops: Sequence[HopEntry]
    classes: Sequence[ClassEntry]
    grouping: str | None
    parameters: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    name: str | None = None
    version: str = ""
    partial: str | None = None
    thumbnails: bool = True

    def __post_init__(self) -> None:
        if self.grouping not in ("label", "prediction") and not self.partial:
            raise AtlasError(
                f"an atlas groups images by 'label' or 'prediction', not by {self.grouping!r}."
            )
        indices = [entry.index for entry in self.classes]
        if indices != sorted(set(indices)) or (indices and indices[0] < 0):
            raise AtlasError(
                "the classes of an atlas need rising, distinct indices from 0 on; "
                f"these are {_short(indices)}."
            )
        for parameter in () if self.partial else ("shard_size", "batch_size"):
            value = self.parameters.get(parameter)
            if not isinstance(value, int) or value < 1:
                raise AtlasError(
                    f"the parameter '{parameter}' has to be a whole number from 1 on, "
                    f"it is {value!r}."
                )
        owner: dict[int, ClassEntry] = {}
        for entry in self.classes:
            for output in entry.outputs:
                if output in owner:
                    raise AtlasError(
                        f"output {output} of the model is in two classes, "
                        f"{owner[output].name!r} and {entry.name!r}: leave it in one of them."
                    )
                owner[output] = entry
        for number, layer in enumerate(self.layers):
            if layer.number != number:
                raise AtlasError(
                    f"layers are numbered from 0 in the order of the forward pass; "
                    f"{layer.name!r} has number {layer.number} in place {number}."
                )

    @property
    def identity(self) -> dict[str, Any]:
        """The part that has to be equal for counts to be added, as JSON."""
        return _plain_object(
            {
                "weights_hash": self.weights_hash,
                "layers": [layer._asdict() for layer in self.layers],
                "hops": [hop._asdict() for hop in self.hops],
                "grouping": self.grouping,
                "parameters": dict(self.parameters),
                "preprocessing": dict(self.preprocessing),
                "classes": [asdict(entry) for entry in self.classes],
            }
        )

    def header(self) -> dict[str, Any]:
        """What `atlas.json` holds of it, as JSON."""
        return _plain_object(
            {
                "format": FORMAT_VERSION,
                "summit_graph": self.version,
                "key": self.key,
                "name": self.name or self.key,
                "model": dict(self.model),
                "dataset": dict(self.dataset),
                "identity": self.identity,
                **({"partial": self.partial} if self.partial else {"thumbnails": self.thumbnails}),
            }
        )

    @classmethod
    def of_header(cls, header: Mapping[str, Any]) -> Description:
        """The description that an atlas was made with, from its `atlas.json`."""
        identity = header["identity"]
        return cls(
            key=header["key"],
            model=header["model"],
            weights_hash=identity["weights_hash"],
            dataset=header["dataset"],
            layers=layers_of(identity),
            hops=hops_of(identity),
            classes=classes_of(identity),
            grouping=identity["grouping"],
            parameters=identity["parameters"],
            preprocessing=identity["preprocessing"],
            name=header["name"],
            version=header["summit_graph"],
            partial=header.get("partial"),
            thumbnails=header.get("thumbnails", True),
        )


def layers_of(identity: Mapping[str, Any]) -> tuple[LayerEntry, ...]:
    """The layers in `Description.identity`, by number."""
    return tuple(LayerEntry(**entry) for entry in identity["layers"])


def hops_of(identity: Mapping[str, Any]) -> tuple[HopEntry, ...]:
    """The hops in `Description.identity`, by number."""
    return tuple(
        HopEntry(**{**entry, "mixers": None if entry["mixers"] is None else tuple(entry["mixers"])})
        for entry in identity["hops"]
    )


def classes_of(identity: Mapping[str, Any]) -> tuple[ClassEntry, ...]:
    """The classes in `Description.identity`, by rising index."""
    return tuple(
        ClassEntry(**{**entry, "outputs": tuple(entry["outputs"])}) for entry in identity["classes"]
    )


def default_key(model: str, identity: Mapping[str, Any], dataset: str) -> str:
    """`<model>-<8 hex digits>`: the name of an atlas whose maker gave it none.

    The digits are of a SHA-256 over weights, layers, grouping, parameters, preprocessing, classes
    (`Description.identity`) and the data set's name, so that added images do not change it and
    another checkpoint or grouping does. Characters of the model's name other than letters, digits,
    `.`, `_` and `-` become `-`.
    """
    text = canonical({"identity": identity, "dataset": dataset})
    digits = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{re.sub(r'[^0-9A-Za-z._-]+', '-', model).strip('-') or 'model'}-{digits}"


def canonical(value: Any) -> str:
    """`value` as JSON text, the same for equal values whatever the order of their keys."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


class Difference(NamedTuple):
    """The first place where two JSON values differ. `where` reads like `parameters.mass`."""

    where: str
    first: str
    second: str


def first_difference(first: Any, second: Any, where: str = "") -> Difference | None:
    """The first place where two JSON values differ, or None if they are equal.

    Objects are compared key by key in sorted order, lists item by item; then lengths. The values
    come as short JSON text, `nothing` where there is none.
    """
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for key in sorted({*first, *second}):
            place = f"{where}.{key}" if where else str(key)
            if key not in first or key not in second:
                return Difference(
                    place,
                    _short(first[key]) if key in first else "nothing",
                    _short(second[key]) if key in second else "nothing",
                )
            if found := first_difference(first[key], second[key], place):
                return found
        return None
    if isinstance(first, list) and isinstance(second, list):
        for number, (one, other) in enumerate(zip(first, second, strict=False)):
            if found := first_difference(one, other, f"{where}[{number}]"):
                return found
        if len(first) != len(second):
            return Difference(f"the length of {where}", str(len(first)), str(len(second)))
        return None
    equal = first == second and isinstance(first, bool) == isinstance(second, bool)
    return None if equal else Difference(where, _short(first), _short(second))


def checked(name: str, table: pa.Table, schema: pa.Schema) -> pa.Table:
    """`table` with exactly the columns and types of `schema`, safely cast.

    Raises: AtlasError where a column is missing or too many, or a value does not fit its type.
    """
    if set(table.column_names) != set(schema.names) or len(table.column_names) != len(schema):
        raise AtlasError(
            f"table '{name}' has the columns {', '.join(table.column_names)}; "
            f"it needs {', '.join(schema.names)}."
        )
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise AtlasError(f"table '{name}' does not fit its columns: {error}") from error


def key_columns(name: str, table: pa.Table) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    """The key of each row of an atlas table: (rows,) int64 per column, null as -2**63."""
    return [
        np.asarray(table.column(column).cast(pa.int64()).fill_null(-(2**63)))
        for column in KEYS[name]
    ]


def first_unsorted(columns: Sequence[np.ndarray[Any, np.dtype[np.int64]]]) -> int | None:
    """The first row (from 1) whose key does not lie above that of the row before, or None.

    columns: the key's columns, (rows,) each, the most significant first.
    """
    if not columns or len(columns[0]) < 2:
        return None
    above = np.zeros(len(columns[0]) - 1, dtype=bool)
    equal = np.ones(len(columns[0]) - 1, dtype=bool)
    for column in columns:
        above |= equal & (column[1:] > column[:-1])
        equal &= column[1:] == column[:-1]
    return None if bool(above.all()) else int(np.argmin(above)) + 1


def _plain_object(value: Mapping[str, Any]) -> dict[str, Any]:
    """`value` as it is read back from JSON: tuples are lists, keys are text."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise AtlasError(f"the description of an atlas has to be plain JSON: {error}.") from error
    return plain


def _short(value: Any, length: int = 80) -> str:
    text = canonical(value)
    return text if len(text) <= length else text[: length - 1] + "…"
