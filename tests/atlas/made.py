"""Made atlases: counts that depend on each image alone, and their sums in plain Python.

What an image adds is drawn from its hash, so any split into shards gives the same sums.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from summit_graph.atlas import thumbnails
from summit_graph.atlas.generation import Generation
from summit_graph.atlas.schema import (
    ATLAS_TABLES,
    SHARD_TABLES,
    ClassEntry,
    Description,
    HopEntry,
    LayerEntry,
    ReceptiveField,
    default_key,
)
from summit_graph.atlas.store import ImageEntry, Shard, Store
from summit_graph.atlas.tables import build_tables

CHANNELS = 6
LAYERS = (
    LayerEntry(0, "stem", True, CHANNELS, 8, 8),
    LayerEntry(1, "stem/reduce", False, CHANNELS, 8, 8),
    LayerEntry(2, "mixed/a", True, CHANNELS, 4, 4),
    LayerEntry(3, "mixed/b", True, CHANNELS, 4, 4),
)
HOPS = (
    HopEntry(0, 0, 1, ("stem.reduce",)),
    HopEntry(1, 1, 2, ("mixed.a.0", "mixed.a.1")),
    HopEntry(2, 2, 3, ()),
)
FIELDS = (
    ReceptiveField(0, -1, -1, 1.0, 1.0, 3, 3),
    ReceptiveField(2, -2, -3, 2.0, 2.0, 6, None),
    ReceptiveField(3, 0, 0, 0.0, 0.0, None, None),
)
CLASSES = (
    ClassEntry(0, "white wolf", "n02114548", (0,)),
    ClassEntry(2, "tench, Tinca tinca", "n01440764", (1, 2)),
    ClassEntry(5, "never seen", None, (3,)),
)
OUTPUTS = 5
"""Outputs of the made model; the last is in no class."""


def description(**changes: Any) -> Description:
    values: dict[str, Any] = {
        "key": "toy-0",
        "model": {"name": "toy"},
        "weights_hash": "aa" * 32,
        "dataset": {"name": "made"},
        "layers": LAYERS,
        "hops": HOPS,
        "classes": CLASSES,
        "grouping": "label",
        "parameters": {"mass": 0.03, "k": 5, "shard_size": 4, "batch_size": 3, "examples": 3},
        "preprocessing": {"size": [8, 8], "mean": [0.5]},
    }
    values.update(changes)
    made = Description(**values)
    if changes.get("key", "") is None:
        values["key"] = default_key("toy", made.identity, made.dataset["name"])
        made = Description(**values)
    return made


def images(
    count: int, folders: Sequence[str] = ("a", "b", "c"), start: int = 0
) -> list[ImageEntry]:
    """`count` images spread over folders, every seventh without a label."""
    return [
        ImageEntry(
            path=f"{folders[number % len(folders)]}/{number:04d}.png",
            folder=folders[number % len(folders)],
            label=None if number % 7 == 6 else number % OUTPUTS,
            size=1000 + number,
            hash=f"{number:064x}",
        )
        for number in range(start, start + count)
    ]


def owner(output: int | None) -> int | None:
    """The class of an output, None if there is none."""
    return next((entry.index for entry in CLASSES if output in entry.outputs), None)


def image_counts(image: ImageEntry, grouping: str = "label") -> dict[str, Any]:
    """What one image adds: its row, and lists of keys for each table of counts."""
    draw = random.Random(image.hash)
    predicted = draw.randrange(OUTPUTS)
    index = owner(image.label if grouping == "label" else predicted)
    broken = draw.random() < 0.05
    row = {
        "path": image.path,
        "size": image.size,
        "hash": image.hash,
        "label": image.label,
        "class": None if broken else index,
        "predicted": None if broken else predicted,
        "probability": None if broken or image.label is None else draw.randrange(0, 33) / 32,
        "label_rank": None if broken or image.label is None else draw.randrange(1, 9),
        "status": "cut short" if broken else "ok",
    }
    counts: dict[str, Any] = {"row": row, "activations": [], "influences": [], "votes": []}
    counts["examples"] = []
    if broken or index is None:
        return counts
    for layer in LAYERS:
        for channel in draw.sample(range(CHANNELS), 3):
            counts["activations"].append((index, layer.number, channel))
        for channel in range(CHANNELS):
            activation = draw.randrange(0, 6) / 4
            if activation > 0:
                place = (draw.randrange(8), draw.randrange(8))
                counts["examples"].append((layer.number, channel, activation, *place))
    for hop in HOPS:
        for target in range(CHANNELS):
            for source in draw.sample(range(CHANNELS), 2):
                counts["influences"].append((index, hop.number, source, target))
    for channel in draw.sample(range(CHANNELS), 2):
        counts["votes"].append((index, 3, channel))
        counts["votes"].append((index, 1, channel))
    return counts


def table(schema: pa.Schema, rows: Iterable[Sequence[Any]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    return pa.table(
        [pa.array(list(column), field.type) for column, field in zip(columns, schema, strict=True)],
        schema=schema,
    )


def shard_tables(
    shard: Iterable[ImageEntry], grouping: str = "label", per_class: bool = False, limit: int = 3
) -> dict[str, pa.Table]:
    """The tables that counting these images hands over."""
    parts = [image_counts(image, grouping) for image in shard]
    tables = {"images": pa.Table.from_pylist([part["row"] for part in parts], _schema("images"))}
    for name in ("activations", "influences", "votes"):
        sums = Counter(key for part in parts for key in part[name])
        tables[name] = table(_schema(name), [(*key, count) for key, count in sums.items()])
    best: dict[tuple[Any, ...], list[tuple[Any, ...]]] = defaultdict(list)
    for part in parts:
        for layer, channel, activation, row, column in part["examples"]:
            found = (-activation, part["row"]["path"], activation, row, column)
            best[None, layer, channel].append(found)
            if per_class:
                best[part["row"]["class"], layer, channel].append(found)
    tables["examples"] = table(
        _schema("examples"),
        [
            (*key, path, activation, row, column)
            for key, found in best.items()
            for _, path, activation, row, column in sorted(found)[:limit]
        ],
    )
    return tables


def _schema(name: str) -> pa.Schema:
    return SHARD_TABLES[name]


def count(store: Store, **options: Any) -> None:
    """Counts all pending shards."""
    for number in store.pending():
        store.write_shard(number, shard_tables(store.shard(number).images, **options))


def derived(generation: Generation) -> dict[str, pa.Table]:
    """Made tables of a ranking: every count is kept, PageRank is the share of counts."""
    rows: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for entry in generation.classes:
        index = entry.index
        for hop, (sources, targets, counts) in sorted(generation.class_influences(index).items()):
            ends = HOPS[hop]
            if ends.target == 1:
                continue
            source_layer = 0 if ends.source == 1 else ends.source
            for source, target, number in zip(sources, targets, counts, strict=True):
                rows["edges"].append((index, source_layer, source, ends.target, target, number))
        found = [
            (layer, channel, number)
            for layer, (channels, counts) in sorted(generation.class_activations(index).items())
            if layer != 1
            for channel, number in zip(channels.tolist(), counts.tolist(), strict=True)
        ]
        total = sum(number for *_, number in found)
        order = sorted(found, key=lambda neuron: (-neuron[2], neuron))
        for layer, channel, number in found:
            rank = order.index((layer, channel, number)) + 1
            rows["ranks"].append((index, layer, channel, number / total, rank, rank <= 8))
        rows["selections"].append((index, 0.075, None, min(8, len(found)), 0, 9, True, [2]))
        for layer, (channels, counts) in sorted(generation.class_raw_votes(index).items()):
            if layer != 1:
                rows["votes"] += [
                    (index, layer, channel, number)
                    for channel, number in zip(channels.tolist(), counts.tolist(), strict=True)
                ]
    for layer in (None, 0):
        for entry in generation.classes:
            others = [other for other in generation.classes if other.index != entry.index]
            rows["similarity"] += [
                (layer, entry.index, other.index, 1 / (1 + abs(entry.index - other.index)))
                for other in others
            ]
    for layer in (0, 2):
        rows["embedding"] += [
            (layer, entry.index, layer - entry.index / 3, 1 / (1 + entry.index))
            for entry in generation.classes[layer // 2 :]
        ]
    return {name: table(ATLAS_TABLES[name], found) for name, found in rows.items()}


def rank(store: Store) -> Generation:
    """Puts the made tables of a ranking in place."""
    return store.replace_tables(derived(store.generation), {"ranking": {"mass": 0.075}})


def atlas(path: Path, entries: Sequence[ImageEntry], ranked: bool = True, **changes: Any) -> Path:
    """A whole made atlas at `path`."""
    with Store.create(path, description(**changes)) as store:
        store.plan(entries)
        count(store, grouping=changes.get("grouping", "label"))
        build_tables(store, threads=1, fields=FIELDS)
        if ranked:
            rank(store)
    return path


def picture(content_hash: str) -> Image.Image:
    """A made picture of 8 x 8 pixels, another one for each image."""
    return Image.frombytes("L", (8, 8), hashlib.sha512(content_hash.encode()).digest())


def make_thumbnails(store: Store) -> None:
    """The thumbnails that the atlas lacks, of made pictures."""
    wanted = thumbnails.wanted(store.generation)
    thumbnails.prune(store.path, wanted)
    for content in thumbnails.missing(store.path, wanted):
        thumbnails.write(store.path, content, thumbnails.encoded(picture(content)))
    thumbnails.settle(store.path)


def tables(path: Path) -> dict[str, pa.Table]:
    """All tables of an atlas."""
    generation = Generation.current(path)
    return {name: generation.table(name) for name in generation.tables()}


def sums(entries: Iterable[ImageEntry], grouping: str = "label") -> Mapping[str, Any]:
    """The counted tables of these images, by plain sums: name -> list of row tuples."""
    parts = sorted(
        (image_counts(image, grouping) for image in entries), key=lambda part: part["row"]["path"]
    )
    result: dict[str, Any] = {}
    for source, target in (
        ("activations", "activations"),
        ("influences", "influences"),
        ("votes", "raw_votes"),
    ):
        found = Counter(key for part in parts for key in part[source])
        result[target] = [(*key, number) for key, number in sorted(found.items())]
    result["images"] = [(number, *part["row"].values()) for number, part in enumerate(parts)]
    best: dict[tuple[int, int], list[tuple[Any, ...]]] = defaultdict(list)
    for number, part in enumerate(parts):
        for layer, channel, activation, row, column in part["examples"]:
            best[layer, channel].append((-activation, number, activation, row, column))
    result["examples"] = [
        (None, *key, place, *example[1:])
        for key in sorted(best)
        for place, example in enumerate(sorted(best[key])[:3], 1)
    ]
    rows = [part["row"] for part in parts if part["row"]["status"] == "ok"]
    result["classes"] = []
    confused: Counter[tuple[int, int]] = Counter()
    for entry in CLASSES:
        own = [row for row in rows if row["class"] == entry.index]
        judged = [row for row in own if row["label_rank"] is not None]
        bins = [0] * 10
        for row in judged:
            bins[min(9, int(row["probability"] * 10))] += 1
        shares = [
            sum(row["label_rank"] <= best_of for row in judged) / len(judged) if judged else None
            for best_of in (1, 5)
        ]
        result["classes"].append(
            (entry.index, entry.name, entry.synset, len(own), *shares, bins if judged else None)
        )
        for row in own:
            other = row["predicted" if grouping == "label" else "label"]
            if other is not None and owner(other) != entry.index:
                confused[entry.index, -1 if owner(other) is None else owner(other)] += 1
    result["confusions"] = [(*key, number) for key, number in sorted(confused.items())]
    result["layers"] = [tuple(layer) for layer in LAYERS]
    result["hops"] = [(*hop[:3], list(hop.mixers)) for hop in HOPS]
    return result


def rows(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def shard_of(entries: Sequence[ImageEntry], number: int = 0) -> Shard:
    return Shard(number, (tuple(entries),))
