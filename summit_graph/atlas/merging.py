"""Adds atlases: one atlas of the images of several, with counts that are the sums.

1. The atlases have to be equal in weights, layers, parameters, preprocessing and classes
   (`Description.identity`). No image may be in two of them, told by its content's hash, unless
   that is allowed.
2. The new atlas takes over all shards, in an order that depends on their images alone: `merge A B`
   equals `merge B A`.
3. Its tables are made from the shards like any others: images are numbered anew by path, the best
   examples stay, accuracies are of all images. What comes after counting (ranks, embedding,
   similarity) is to be made anew.
4. Receptive fields are those of any of them, since the model is one. Thumbnails of examples come
   along, unless one of the atlases is to have none. So do feature visualisations: of a neuron that
   several have pictures of, those of one.

It is made under a temporary name beside its own and renamed, so it is whole or absent.
Source of why counts add up: docs/method.md, section 7.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from summit_graph.atlas import thumbnails
from summit_graph.atlas.features import FOLDER, Feature, FeatureStore, read_features
from summit_graph.atlas.generation import Generation, locate
from summit_graph.atlas.schema import (
    SHARD_TABLES,
    Description,
    ReceptiveField,
    canonical,
    default_key,
    first_difference,
)
from summit_graph.atlas.store import (
    SHARDS,
    Store,
    made_whole,
    plan_digest,
    reading,
    require_free,
)
from summit_graph.atlas.tables import MEMORY, build_tables
from summit_graph.errors import AtlasError, UsageError

_NAMED = 3
_AT_ONCE = 256
"""Neurons whose feature visualisations are copied together."""

_JOINED = " + "


class _Source(NamedTuple):
    path: Path
    description: Description
    plan: pa.Table
    fields: tuple[ReceptiveField, ...] | None


def merge_atlases(
    paths: Sequence[str | Path],
    output: str | Path,
    allow_duplicates: bool = False,
    memory: int = MEMORY,
    threads: int | None = None,
) -> Store:
    """Makes one atlas of several and returns it opened for writing, its tables not yet ranked.

    paths: two or more finished atlases; they stay as they are. output: a folder that is not there
    yet. allow_duplicates: count images that are in several atlases once for each. memory, threads:
    as `tables.build_tables`.

    The model's key is kept where all have the same, else made as for a new atlas; the data set is
    named after all of theirs. How the atlases were ranked is not taken over; see `common_ranking`.

    Raises: UsageError for fewer than two; AtlasError with the first difference, with images that
    are in several, if an atlas is not finished or in use, if `output` is there, or if it cannot be
    written; nothing is left behind then.
    """
    if len(paths) < 2:
        raise UsageError("merging takes two atlases or more.")
    require_free(Path(output))
    with ExitStack() as stack:
        sources = []
        for path in paths:
            generation, plan = stack.enter_context(reading(path))
            if generation.partial:
                raise AtlasError(f"{path} cannot be added to another: {generation.partial}.")
            source = _Source(
                Path(path), Description.of_header(generation.header), plan, generation.fields
            )
            _require_finished(source)
            sources.append(source)
        _require_equal(sources)
        if not allow_duplicates:
            _refuse_duplicates(sources)
        with made_whole(output, _merged([source.description for source in sources])) as store:
            folders, plans = _ordered(sources)
            store.adopt(folders, plans)
            fields = next((s.fields for s in sources if s.fields is not None), None)
            generation = build_tables(store, memory, threads, fields)
            if generation.header["thumbnails"]:
                thumbnails.take_over([source.path for source in sources], store.path, generation)
            _take_features(sources, store.path)
    return store


def common_ranking(paths: Iterable[str | Path]) -> Mapping[str, Any] | None:
    """How atlases were ranked (`ranking` in `atlas.json`), if all were and alike; else None.

    Raises: AtlasError if one is no atlas.
    """
    rankings = [Generation(locate(Path(path))).header.get("ranking") for path in paths]
    if rankings and all(canonical(ranking) == canonical(rankings[0]) for ranking in rankings):
        found: Mapping[str, Any] | None = rankings[0]
        return found
    return None


def _require_finished(source: _Source) -> None:
    numbers = np.unique(source.plan.column("shard").to_numpy()).tolist()
    missing = [number for number in numbers if not (source.path / SHARDS / str(number)).is_dir()]
    if missing or not numbers:
        what = f"{len(missing)} of its {len(numbers)} shards are" if numbers else "no image is"
        raise AtlasError(
            f"{source.path} is not finished: {what} not counted yet. "
            "Run its `summit-graph ingest` again to go on, then merge."
        )


def _require_equal(sources: Sequence[_Source]) -> None:
    first = sources[0]
    for other in sources[1:]:
        difference = first_difference(first.description.identity, other.description.identity)
        if difference:
            raise AtlasError(
                f"{first.path} and {other.path} cannot be added: {difference.where} is "
                f"{difference.first} in the one and {difference.second} in the other."
            )


def _refuse_duplicates(sources: Sequence[_Source]) -> None:
    seen: dict[str, tuple[Path, str]] = {}
    found: list[str] = []
    for source in sources:
        rows = zip(
            *(source.plan.column(name).to_pylist() for name in ("hash", "path")), strict=True
        )
        own: dict[str, tuple[Path, str]] = {}
        for content, path in rows:
            if content in seen:
                where, twin = seen[content]
                found.append(f"{path} of {source.path} is {twin} of {where}")
            own.setdefault(content, (source.path, path))
        seen.update(own)
    if found:
        more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise AtlasError(
            f"{len(found)} images are in several of the atlases: "
            f"{'; '.join(found[:_NAMED])}{more}. "
            "Pass --allow-duplicates to count them once for each atlas."
        )


def _merged(descriptions: Sequence[Description]) -> Description:
    """What the new atlas is of, whatever the order of the descriptions."""
    ordered = sorted(descriptions, key=lambda description: canonical(description.header()))
    first = ordered[0]
    names = {name for each in ordered for name in str(each.dataset.get("name", "")).split(_JOINED)}
    dataset: Mapping[str, Any] = {"name": _JOINED.join(sorted(names))}
    if all(canonical(each.dataset) == canonical(first.dataset) for each in ordered):
        dataset = first.dataset
    same_key = all(each.key == first.key for each in ordered)
    key = (
        first.key
        if same_key
        else default_key(
            str(first.model.get("name", "model")), first.identity, str(dataset["name"])
        )
    )
    return Description(
        key=key,
        model=first.model,
        weights_hash=first.weights_hash,
        dataset=dataset,
        layers=first.layers,
        hops=first.hops,
        classes=first.classes,
        grouping=first.grouping,
        parameters=first.parameters,
        preprocessing=first.preprocessing,
        name=first.name if all(each.name == first.name for each in ordered) else key,
        version=max(each.version for each in ordered),
        thumbnails=all(each.thumbnails for each in ordered),
    )


def _ordered(sources: Sequence[_Source]) -> tuple[list[Path], list[pa.Table]]:
    """The folders of all shards and their rows of the plan, in an order of their content alone."""
    found: list[tuple[tuple[str, str], Path, pa.Table]] = []
    for source in sources:
        for number in np.unique(source.plan.column("shard").to_numpy()).tolist():
            rows = source.plan.filter(pc.equal(source.plan.column("shard"), number))
            place = (pc.min(rows.column("path")).as_py(), plan_digest(rows))
            found.append((place, source.path / SHARDS / str(number), rows))
    found.sort(key=lambda shard: shard[0])
    ordered: list[tuple[tuple[str, str], Path, pa.Table]] = []
    for _, group in groupby(found, key=lambda shard: shard[0]):
        twins = list(group)
        if len(twins) > 1:
            twins.sort(key=lambda shard: _content(shard[1]))
        ordered += twins
    return [folder for _, folder, _ in ordered], [rows for _, _, rows in ordered]


def _take_features(sources: Sequence[_Source], atlas: Path) -> None:
    """Copies feature visualisations, whatever the order of the sources."""
    ordered = sorted(
        sources,
        key=lambda source: (canonical(source.description.header()), plan_digest(source.plan)),
    )
    found: dict[tuple[int, int], tuple[Path, tuple[Feature, ...]]] = {}
    for source in ordered:
        for neuron, features in read_features(source.path).items():
            folder = source.path / FOLDER
            if all((folder / feature.file).is_file() for feature in features):
                found.setdefault(neuron, (folder, features))
    if not found:
        return
    with FeatureStore(atlas) as store:
        for some in _runs(sorted(found), _AT_ONCE):
            store.put(
                (feature, (folder / feature.file).read_bytes())
                for folder, features in (found[neuron] for neuron in some)
                for feature in features
            )


def _runs(neurons: Sequence[tuple[int, int]], size: int) -> Iterable[Sequence[tuple[int, int]]]:
    """Runs of at most `size`."""
    return (neurons[start : start + size] for start in range(0, len(neurons), size))


def _content(folder: Path) -> str:
    """A SHA-256 over the files of a shard."""
    digest = hashlib.sha256()
    for name in SHARD_TABLES:
        with (folder / f"{name}.parquet").open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
