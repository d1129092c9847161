"""A made atlas of 1,000 classes, of the layers of GoogLeNet, for what has to be quick and to hold.

Classes come in families of ten that share many neurons, so that they have near neighbours. Some are
called what would do harm as markup, script or file name; one has no graph, one no image; an index
is left out, so that places and indices differ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from summit_graph.atlas.schema import (
    ATLAS_TABLES,
    ClassEntry,
    Description,
    HopEntry,
    LayerEntry,
)
from summit_graph.atlas.store import Store
from summit_graph.explain.similarity import similarity

CLASSES = 1000
LEFT_OUT = 500
"""An index without a class: the classes have the indices 0 to 1,000, but for this."""

IMAGES = 1300
WITHOUT_GRAPH = 7
WITHOUT_IMAGE = 8

CHANNELS = {
    "inception3a": 256,
    "inception3b": 480,
    "inception4a": 512,
    "inception4b": 512,
    "inception4c": 512,
    "inception4d": 528,
    "inception4e": 832,
    "inception5a": 832,
    "inception5b": 1024,
}

HOSTILE = {
    20: "<img src=x onerror=\"document.title='owned'\">",
    21: "</script><script>document.title='owned'</script>",
    22: "a\u2028line\u2029break",
    23: "\"quoted\" 'twice' `and` \\ back",
    24: "nul \x00, bell \x07, tab \t",
    25: "\u202eright to left\u202c",
    26: "&lt;b&gt; &amp; ${1+1} {{7*7}}",
    27: "<!--",
    28: "__proto__",
    29: " ",
    30: "🦊 fuchs, ünïcode, キツネ, ثعلب",
    31: "javascript:document.title='owned'//",
}
LONG = {40: "a very long name " * 12, 41: "unbroken" * 30}

_ADJECTIVES = ("white", "black", "small", "giant", "spotted", "common", "northern", "wild", "red")
_NOUNS = ("wolf", "bear", "finch", "shark", "cart", "kettle", "spider", "boat", "daisy", "piano")


def name(index: int) -> str:
    """The name of the class of an index."""
    if index in HOSTILE or index in LONG:
        return HOSTILE.get(index) or LONG[index]
    return f"{_ADJECTIVES[index % 9]} {_NOUNS[index // 10 % 10]} {index}"


def indices() -> list[int]:
    return [index for index in range(CLASSES + 1) if index != LEFT_OUT]


def layers() -> list[LayerEntry]:
    """Each chosen layer after a hidden one, so that numbers and places differ."""
    found = []
    for at, (layer, channels) in enumerate(CHANNELS.items()):
        side = 28 if at < 2 else 14 if at < 7 else 7
        found.append(LayerEntry(2 * at, f"{layer}.reduce", False, 64, side, side))
        found.append(LayerEntry(2 * at + 1, layer, True, channels, side, side))
    return found


def description() -> Description:
    return Description(
        key="made-1000",
        model={"name": "made", "spec": "made", "weights": "none"},
        weights_hash="00" * 32,
        dataset={"name": "a thousand classes"},
        layers=layers(),
        hops=[HopEntry(at, 2 * at + 1, 2 * at + 3, ()) for at in range(len(CHANNELS) - 1)],
        classes=[ClassEntry(index, name(index), f"n{index:08}", (index,)) for index in indices()],
        grouping="label",
        parameters={"mass": 0.03, "k": 5, "shard_size": 512, "batch_size": 16, "examples": 3},
        preprocessing={},
    )


def atlas(path: Path, seed: int = 0) -> Path:
    """The made atlas, at `path`."""
    draw = np.random.default_rng(seed)
    graphs = [
        _graph(draw, family)
        for family in [draw.integers(0, 200, (len(CHANNELS), 9)) for _ in range(101)]
        for _ in range(10)
    ]
    columns: dict[str, list[Any]] = {"activations": [], "ranks": [], "edges": [], "votes": []}
    sizes = {}
    for index in indices():
        if index == WITHOUT_IMAGE:
            sizes[index] = (0, 0)
            continue
        layer, channel, count, pagerank, edges = graphs[index]
        order = np.lexsort((channel, layer))
        layer, channel, count, pagerank = (
            values[order] for values in (layer, channel, count, pagerank)
        )
        rank = np.empty(len(order), np.int64)
        rank[np.lexsort((np.arange(len(order)), -pagerank))] = np.arange(len(order)) + 1
        selected = (rank <= 60) & (index != WITHOUT_GRAPH)
        columns["activations"].append(_rows(index, layer, channel, count))
        columns["ranks"].append(_rows(index, layer, channel, pagerank, rank, selected))
        columns["edges"].append(_rows(index, *edges))
        last = layer == layer.max()
        columns["votes"].append(_rows(index, layer[last], channel[last], count[last] // 2 + 1))
        kept = set(zip(layer[selected].tolist(), channel[selected].tolist(), strict=True))
        inside = [
            (source_layer, source) in kept and (target_layer, target) in kept
            for source_layer, source, target_layer, target in zip(
                *(column.tolist() for column in edges[:4]), strict=True
            )
        ]
        sizes[index] = (int(selected.sum()), sum(inside))
    tables = {name: _table(name, parts) for name, parts in columns.items()}
    tables |= _others(draw, sizes, tables["activations"], tables["ranks"])
    with Store.create(path, description()) as store, store.draft(keep=()) as draft:
        for table_name in ATLAS_TABLES:
            if table_name in tables:
                draft.write(table_name, tables[table_name])
        draft.publish(
            {
                **store.header,
                "complete": True,
                "counted": {"images": CLASSES, "digest": store.digest},
                "ranking": {"mass": 0.075, "damping": 0.85, "exclude": [], "sources": None},
            },
            fresh=True,
        )
    return path


def _graph(draw: np.random.Generator, family: npt.NDArray[np.int64]) -> tuple[Any, ...]:
    """Layer, channel, count and PageRank of 90 neurons, and some 300 edges between them."""
    channels = [
        np.unique(np.concatenate([draw.permutation(own)[:7], draw.integers(200, 256, 3)]))
        for own in family
    ]
    layer = np.repeat(2 * np.arange(len(channels)) + 1, [len(own) for own in channels])
    channel = np.concatenate(channels)
    count = np.maximum(1, (IMAGES * draw.beta(1.2, 3, len(channel))).astype(np.int64))
    pagerank = draw.random(len(channel)) * count
    edges = []
    for at in range(len(channels) - 1):
        sources, targets = np.meshgrid(channels[at], channels[at + 1], indexing="ij")
        kept = draw.random(sources.shape) < 0.45
        number = int(kept.sum())
        edges.append(
            (
                np.full(number, 2 * at + 1),
                sources[kept],
                np.full(number, 2 * at + 3),
                targets[kept],
                np.maximum(1, (IMAGES * draw.beta(1, 6, number)).astype(np.int64)),
            )
        )
    joined = tuple(np.concatenate(column) for column in zip(*edges, strict=True))
    return layer, channel, count, pagerank / pagerank.sum(), joined


def _others(
    draw: np.random.Generator, sizes: dict[int, tuple[int, int]], activations: Any, ranks: Any
) -> dict[str, pa.Table]:
    """All tables but those of counts and ranks."""
    found: dict[str, pa.Table] = {
        "layers": _of_rows("layers", [tuple(layer) for layer in layers()]),
        "hops": _of_rows("hops", [(*hop[:3], []) for hop in description().hops]),
    }
    classes, confusions = [], []
    for index in indices():
        if index == WITHOUT_IMAGE:
            classes.append((index, name(index), f"n{index:08}", 0, None, None, None))
            continue
        bins = draw.multinomial(IMAGES, draw.dirichlet(np.linspace(0.3, 3, 10)))
        top1 = round(float(draw.beta(6, 2)), 4)
        top5 = (1 + top1) / 2
        classes.append((index, name(index), f"n{index:08}", IMAGES, top1, top5, bins.tolist()))
        near = sorted({other for other in (index ^ 1, index ^ 3, index ^ 6) if other in sizes})
        confusions += [(index, -1, 2)] * (index % 2)
        confusions += [(index, other, int(draw.integers(1, 90))) for other in near]
    found["classes"] = _of_rows("classes", classes)
    found["confusions"] = _of_rows("confusions", confusions)
    found["selections"] = _of_rows(
        "selections",
        [(index, 0.075, 0.001, *sizes[index], 40, True, []) for index in indices()],
    )
    found["images"] = _of_rows(
        "images",
        [
            (
                number,
                f"{number // 5:04}/{number:05}.jpg",
                1,
                f"{number:064x}",
                *3 * (index,),
                0.9,
                1,
                "ok",
            )
            for number, index in enumerate(index for index in indices() for _ in range(5))
        ],
    )
    neurons = np.unique(np.stack([ranks.column("layer"), ranks.column("channel")], 1), axis=0)
    rows = []
    for layer, channel in neurons.tolist():
        picked = draw.choice(5 * CLASSES, 3, replace=False).tolist()
        rows += [
            (None, layer, channel, place, image, 9.0 / place, place, channel % 7)
            for place, image in enumerate(picked, 1)
        ]
    found["examples"] = _of_rows("examples", rows)
    alike = similarity(
        np.searchsorted(indices(), activations.column("class")),
        np.asarray(activations.column("layer")),
        np.asarray(activations.column("channel")),
        np.asarray(activations.column("count")),
        CLASSES,
    )
    order = np.asarray(indices())
    found["similarity"] = pa.table(
        [
            pa.array(np.where(alike.layer < 0, 0, alike.layer), mask=alike.layer < 0),
            pa.array(order[alike.class_index]),
            pa.array(order[alike.other]),
            pa.array(alike.cosine),
        ],
        names=ATLAS_TABLES["similarity"].names,
    ).cast(ATLAS_TABLES["similarity"])
    centres = draw.normal(0, 8, (101, 2))
    points = []
    for layer in range(1, 2 * len(CHANNELS), 2):
        for index in indices():
            if index != WITHOUT_IMAGE:
                x, y = centres[index // 10] * (layer + 4) / 12 + draw.normal(0, 2, 2)
                points.append((layer, index, x, y))
    found["embedding"] = _of_rows("embedding", points)
    return found


def _rows(index: int, *columns: Any) -> tuple[Any, ...]:
    return (np.full(len(columns[0]), index), *columns)


def _table(name: str, parts: list[tuple[Any, ...]]) -> pa.Table:
    schema = ATLAS_TABLES[name]
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return pa.table(columns, names=schema.names).cast(schema)


def _of_rows(name: str, rows: list[Any]) -> pa.Table:
    schema = ATLAS_TABLES[name]
    columns = list(zip(*rows, strict=True))
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)],
        schema=schema,
    )
