"""From counts to attribution graphs: rank all classes of an atlas, or add atlases and rank.

1. Flag the neurons that are active nearly always, and leave out those that the user excludes.
2. Rank every class (`rank/`), class by class, straight into new tables.
3. Compare the classes, and place them in the plane, layer by layer (`explain/`). Places depend on
   the counts alone, so they stay when an atlas is ranked again.
4. Put all tables in place together (`atlas/`).

Nothing here needs PyTorch or an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from joblib import cpu_count
from numpy.typing import NDArray

from summit_graph.atlas.generation import Generation
from summit_graph.atlas.merging import common_ranking, merge_atlases
from summit_graph.atlas.store import Store
from summit_graph.errors import UsageError
from summit_graph.explain.embedding import embedding as embed
from summit_graph.explain.similarity import OVERALL, similarity
from summit_graph.rank.stage import Ranking, excluded, flagged, rank_classes
from summit_graph.reporting import Progress, RankReport, Reports


def rerank(
    atlas: str | Path,
    ranking: Ranking | None = None,
    *,
    embedding: bool = True,
    workers: int | None = None,
    progress: Progress | None = None,
) -> RankReport:
    """Rank all classes of an atlas again, with other parameters; no image is touched.

    Args:
        atlas: the atlas's folder.
        ranking: how; None for the defaults.
        embedding: make the embedding of the classes where the atlas has none yet. One that it has
            is kept in any case.
        workers: processes; None for one a processor.
        progress: where to report; None is silent.

    Raises:
        AtlasError: there is no finished atlas, or it is in use.
        UnknownNeuron: an excluded neuron is not there.
    """
    reports = Reports(progress)
    with Store.open_for_writing(atlas) as store:
        if not store.up_to_date():
            raise UsageError(
                f"{atlas} is not finished: run its `summit-graph ingest` again, then rank."
            )
        return rank_store(store, ranking or Ranking(), workers, reports, embedding)


def merge(
    atlases: Sequence[str | Path],
    output: str | Path,
    *,
    allow_duplicates: bool = False,
    embedding: bool = True,
    workers: int | None = None,
    progress: Progress | None = None,
) -> RankReport:
    """Add atlases of one model, and of the same layers, parameters, preprocessing and classes.

    The ranking's parameters are those of the atlases if they agree, else the defaults.

    Args:
        atlases: two or more folders, in any order.
        output: the new atlas's folder, which must not exist.
        allow_duplicates: count an image that several of them hold as often as they do.
        embedding: make the embedding of the classes.
        workers: processes; None for one a processor.
        progress: where to report; None is silent.

    Raises:
        AtlasError: they differ (the first difference is named), share images, or cannot be read
            or written.
    """
    reports = Reports(progress)
    parameters = common_ranking(atlases)
    ranking = (
        Ranking(**{**parameters, "exclude": tuple(parameters["exclude"])})
        if (parameters)
        else Ranking()
    )
    with reports.stage("adding the atlases", None, "atlas") as stage:
        store = merge_atlases(atlases, output, allow_duplicates=allow_duplicates)
        stage.note(f"{len(atlases)} atlases, {store.planned.num_rows:,} images")
    with store:
        return rank_store(store, ranking, workers, reports, embedding)


def rank_store(
    store: Store,
    ranking: Ranking,
    workers: int | None,
    reports: Progress,
    embedding: bool = True,
) -> RankReport:
    """Rank all classes of an open atlas, compare them, and put the tables in place.

    embedding: make the embedding too, unless the atlas has it already.
    """
    generation = store.generation
    always = flagged(generation)
    exclude = excluded(generation, ranking, always)
    names = {layer.number: layer.name for layer in generation.layers}
    if always and not ranking.exclude_always_active:
        some = ", ".join(f"{names[layer]}/{channel}" for layer, channel in sorted(always)[:5])
        reports.warn(
            f"{len(always)} neurons are active in nearly all images of nearly all classes "
            f"({some}{', …' if len(always) > 5 else ''}). --exclude-always-active leaves them out."
        )
    entry = {"ranking": ranking.describe(), "always_active": sorted(map(list, always))}
    with store.draft() as draft:
        for table in ("edges", "ranks", "selections", "votes", "similarity"):
            draft.write(table, [])
        with reports.stage("ranking", len(generation.classes), "class") as stage:
            for ranked in rank_classes(generation, ranking, exclude, workers or cpu_count()):
                draft.append("edges", ranked.edges)
                draft.append("ranks", ranked.ranks)
                draft.append("selections", ranked.selections)
                draft.append("votes", ranked.votes)
                stage.advance()
        with reports.stage("comparing classes", None, "class"):
            draft.append("similarity", _similarity(generation))
        if embedding and not generation.has("embedding"):
            draft.write("embedding", _embedding(generation, reports))
        published = draft.publish(entry)
    return summarised(published)


def embed_store(store: Store, reports: Progress) -> None:
    """Make the embedding of an open atlas, which is ranked, and put it in place."""
    store.replace_tables({"embedding": _embedding(store.generation, reports)})


def _similarity(generation: Generation) -> pa.Table:
    classes = 1 + max((entry.index for entry in generation.classes), default=-1)
    found = similarity(*_activations(generation), classes)
    of_layer = [None if number == OVERALL else int(number) for number in found.layer]
    return pa.table(
        {
            "layer": pa.array(of_layer, pa.int16()),
            "class": pa.array(found.class_index, pa.int32()),
            "other": pa.array(found.other, pa.int32()),
            "cosine": pa.array(found.cosine, pa.float64()),
        }
    )


def _embedding(generation: Generation, reports: Progress) -> pa.Table:
    layers = sum(layer.chosen for layer in generation.layers)
    with reports.stage("placing classes", layers, "layer") as stage:
        found = embed(*_activations(generation), advance=stage.advance)
    return pa.table({"layer": found.layer, "class": found.class_index, "x": found.x, "y": found.y})


def _activations(
    generation: Generation,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Class, layer, channel and count of each row of the table."""
    table = generation.table("activations")
    class_, layer, channel, count = (
        np.asarray(table.column(name)) for name in ("class", "layer", "channel", "count")
    )
    return class_, layer, channel, count


def summarised(generation: Generation) -> RankReport:
    """The report on a ranking, from its tables."""
    names = {layer.number: layer.name for layer in generation.layers}
    classes = generation.table("classes", columns=["class", "name", "images"]).to_pylist()
    chosen = {row["class"]: row for row in generation.table("selections").to_pylist()}
    counted = [row for row in classes if row["images"]]
    graphs = [chosen[row["class"]] for row in counted if chosen[row["class"]]["neurons"]]
    always = generation.header["always_active"]
    return RankReport(
        classes=len(counted),
        with_graph=len(graphs),
        empty=tuple(r["name"] for r in counted if not chosen[r["class"]]["neurons"]),
        not_converged=tuple(r["name"] for r in counted if not chosen[r["class"]]["converged"]),
        unconnected={
            row["name"]: tuple(names[layer] for layer in chosen[row["class"]]["unconnected"])
            for row in counted
            if chosen[row["class"]]["unconnected"]
        },
        unplaced=_unplaced(generation, {row["class"]: row["name"] for row in counted}),
        always_active=tuple(f"{names[layer]}/{channel}" for layer, channel in always),
        neurons=_spread([graph["neurons"] for graph in graphs]),
        edges=_spread([graph["edges"] for graph in graphs]),
    )


def _unplaced(generation: Generation, counted: Mapping[int, str]) -> dict[str, tuple[str, ...]]:
    """Layer -> the classes with images that its embedding leaves out; counted: index -> name."""
    if not generation.has("embedding"):
        return {}
    table = generation.table("embedding", columns=["layer", "class"])
    there = set(zip(*(column.to_pylist() for column in table.columns), strict=True))
    missing = {
        layer.name: tuple(
            name for index, name in counted.items() if (layer.number, index) not in there
        )
        for layer in generation.layers
        if layer.chosen
    }
    return {name: classes for name, classes in missing.items() if classes}


def _spread(numbers: Sequence[int]) -> tuple[int, float, int]:
    if not numbers:
        return (0, 0.0, 0)
    return (min(numbers), sum(numbers) / len(numbers), max(numbers))
