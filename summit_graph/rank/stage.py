"""All classes of an atlas, ranked: its tables of edges, ranks, selections and votes.

Each class is independent of the others, so classes are spread over processes; the rows come back
in the order of classes and go straight to disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from joblib import Parallel, delayed

from summit_graph.atlas.generation import Generation
from summit_graph.atlas.schema import ATLAS_TABLES
from summit_graph.errors import UnknownNeuron, UsageError
from summit_graph.rank.contraction import HopCounts, LayerShape, Votes, contract_votes
from summit_graph.rank.exclusion import always_active
from summit_graph.rank.ranking import Activations, ClassRank, rank_class

# Below this many classes one process is done before others have started.
_FEW_CLASSES = 24


@dataclass(frozen=True)
class Ranking:
    """How classes are ranked (docs/method.md, sections 4 and 5).

    Attributes:
        mass: the share of PageRank that the attribution graph holds, in (0, 1].
        damping: of the PageRank, in [0, 1).
        sources: how many indirect sources a target keeps; None for the mean number of its
            layer's immediate ones.
        exclude: neurons left out before all else, `layer/channel`; globs are allowed.
        exclude_always_active: leave out those flagged as active nearly always, too.
    """

    mass: float = 0.075
    damping: float = 0.85
    sources: int | None = None
    exclude: tuple[str, ...] = ()
    exclude_always_active: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.mass <= 1:
            raise UsageError(f"mass is {self.mass}; it must be above 0 and at most 1")
        if not 0 <= self.damping < 1:
            raise UsageError(f"damping is {self.damping}; it must be at least 0 and below 1")
        if self.sources is not None and self.sources < 0:
            raise UsageError(f"sources is {self.sources}; it must be at least 0")

    def describe(self) -> dict[str, Any]:
        """The parameters as JSON, for `atlas.json`."""
        return {**asdict(self), "exclude": list(self.exclude)}


class ClassTables(NamedTuple):
    """One class's rows of the ranking tables."""

    edges: pa.Table
    ranks: pa.Table
    selections: pa.Table
    votes: pa.Table


def flagged(generation: Generation) -> frozenset[tuple[int, int]]:
    """The neurons, as (layer, channel), that are active nearly always (section 4)."""
    counts = generation.table("activations")
    images = np.asarray(generation.table("classes", columns=["images"]).column("images"))
    class_, layer, channel, count = (
        np.asarray(counts.column(name)) for name in ("class", "layer", "channel", "count")
    )
    return always_active(class_, layer, channel, count, images)


def excluded(
    generation: Generation, ranking: Ranking, always: frozenset[tuple[int, int]]
) -> frozenset[tuple[int, int]]:
    """The neurons that a ranking leaves out.

    Raises:
        UnknownNeuron: a name or pattern matches no neuron of a chosen layer.
    """
    found = set(always) if ranking.exclude_always_active else set()
    for pattern in ranking.exclude:
        matched = {
            (layer.number, channel)
            for layer in generation.layers
            if layer.chosen
            for channel in range(layer.channels)
            if fnmatchcase(f"{layer.name}/{channel}", pattern)
        }
        if not matched:
            names = ", ".join(layer.name for layer in generation.layers if layer.chosen)
            raise UnknownNeuron(
                f"'{pattern}' matches no neuron. A neuron is written layer/channel; the layers "
                f"are {names}."
            )
        found |= matched
    return frozenset(found)


def rank_classes(
    generation: Generation,
    ranking: Ranking,
    exclude: frozenset[tuple[int, int]],
    workers: int,
) -> Iterator[ClassTables]:
    """Rank every class, in the order of classes, in `workers` processes."""
    classes = range(len(generation.classes))
    indices = [generation.classes[n].index for n in classes]
    if workers <= 1 or len(indices) < _FEW_CLASSES:
        for index in indices:
            yield _rank_one(generation, index, ranking, exclude)
        return
    parallel = Parallel(n_jobs=workers, return_as="generator", inner_max_num_threads=1)
    yield from parallel(
        delayed(_rank_one)(generation, index, ranking, exclude) for index in indices
    )


def _rank_one(
    generation: Generation,
    index: int,
    ranking: Ranking,
    exclude: frozenset[tuple[int, int]],
) -> ClassTables:
    layers = [LayerShape(layer.number, layer.chosen, layer.channels) for layer in generation.layers]
    counted = generation.class_influences(index)
    hops = [
        HopCounts(hop.source, hop.target, *_counts(counted[hop.number]))
        for hop in generation.hops
        if hop.number in counted
    ]
    activations = Activations(*_flat(generation.class_activations(index)))
    ranked = rank_class(
        layers,
        hops,
        activations,
        damping=ranking.damping,
        mass=ranking.mass,
        sources=ranking.sources,
        exclude=exclude,
    )
    raw = Votes(*_flat(generation.class_raw_votes(index)))
    return _tables(index, ranked, contract_votes(layers, hops, raw))


def _counts(
    hop: tuple[npt.NDArray[np.int32], ...],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    source, target, count = hop
    return source, target, count.astype(np.int64)


def _flat(
    by_layer: dict[int, Any],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Counts by layer as columns: layer, channel, count."""
    layer = [np.full(len(channel), n, np.int32) for n, (channel, _) in by_layer.items()]
    channel = [channel for channel, _ in by_layer.values()]
    count = [count.astype(np.int64) for _, count in by_layer.values()]
    none = np.zeros(0, np.int32)
    return (
        np.concatenate([none, *layer]),
        np.concatenate([none, *channel]),
        np.concatenate([none.astype(np.int64), *count]),
    )


def _tables(index: int, ranked: ClassRank, votes: Votes) -> ClassTables:
    selection, edges = ranked.selection, ranked.edges
    keep = np.lexsort((edges.target, edges.target_layer, edges.source, edges.source_layer))
    return ClassTables(
        edges=_table(
            "edges",
            index,
            source_layer=edges.source_layer[keep],
            source=edges.source[keep],
            target_layer=edges.target_layer[keep],
            target=edges.target[keep],
            count=edges.count[keep],
        ),
        ranks=_table(
            "ranks",
            index,
            layer=ranked.layer,
            channel=ranked.channel,
            pagerank=ranked.pagerank,
            rank=selection.rank,
            selected=selection.selected,
        ),
        selections=_table(
            "selections",
            index,
            mass=[selection.mass],
            threshold=[selection.threshold],
            neurons=[int(selection.selected.sum())],
            edges=[int(selection.edges.sum())],
            iterations=[ranked.iterations],
            converged=[ranked.converged],
            unconnected=[list(selection.unconnected)],
        ),
        votes=_table("votes", index, layer=votes.layer, channel=votes.channel, count=votes.count),
    )


def _table(name: str, index: int, **columns: Sequence[Any] | npt.NDArray[Any]) -> pa.Table:
    schema = ATLAS_TABLES[name]
    rows = len(next(iter(columns.values())))
    arrays = {"class": pa.array(np.full(rows, index), pa.int32())}
    arrays |= {key: pa.array(values, schema.field(key).type) for key, values in columns.items()}
    return pa.table(arrays)
