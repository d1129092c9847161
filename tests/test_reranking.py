"""Places of classes in an atlas: made with new counts, kept when it is ranked again."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from atlas import made
from digit_folders import MODEL, write_digits

from summit_graph import Atlas, Ranking, ingest, merge, rerank
from summit_graph.atlas.generation import Generation
from summit_graph.errors import AtlasError


def counted(path: Path, count: int = 30, start: int = 0) -> Path:
    """An atlas of three classes, not ranked yet."""
    return made.atlas(path, made.images(count, start=start), ranked=False)


def table(path: Path) -> pa.Table | None:
    generation = Generation.current(path)
    return generation.table("embedding") if generation.has("embedding") else None


def test_places_stay_when_an_atlas_is_ranked_again(tmp_path: Path) -> None:
    path = counted(tmp_path / "atlas")
    report = rerank(path, embedding=False, workers=1)
    assert table(path) is None
    assert report.unplaced == {}
    with Atlas.open(path) as atlas, pytest.raises(AtlasError, match="without an embedding"):
        atlas.embedding("stem")
    rerank(path, workers=1)
    found = table(path)
    assert found is not None
    assert found.schema.names == ["layer", "class", "x", "y"]
    assert {(row["layer"], row["class"]) for row in found.to_pylist()} == {
        (layer.number, entry.index) for layer in made.LAYERS for entry in made.CLASSES
    }
    file = Generation.current(path).path("embedding").stat().st_ino
    for embedding in (True, False):
        rerank(path, Ranking(mass=0.5), embedding=embedding, workers=1)
        # The file itself, shared with the tables before.
        assert Generation.current(path).path("embedding").stat().st_ino == file


def test_a_merged_atlas_has_places_of_its_own(tmp_path: Path) -> None:
    parts = [counted(tmp_path / name, 20, start) for name, start in (("a", 0), ("b", 20))]
    for part in parts:
        rerank(part, workers=1)
    merge(parts, tmp_path / "both", workers=1)
    merge(parts[::-1], tmp_path / "flat", embedding=False, workers=1)
    whole = counted(tmp_path / "whole", 40)
    rerank(whole, workers=1)
    assert table(tmp_path / "both") == table(whole)
    assert table(tmp_path / "both") != table(parts[0])
    assert table(tmp_path / "flat") is None


def test_classes_that_no_neuron_is_active_for_are_reported(tmp_path: Path) -> None:
    path = counted(tmp_path / "atlas")
    generation = Generation.current(path)
    rows = generation.table("activations")
    silent = pc.and_(pc.equal(rows.column("class"), 2), pc.equal(rows.column("layer"), 3))
    pq.write_table(rows.filter(pc.invert(silent)), generation.path("activations"))
    report = rerank(path, workers=1)
    assert report.unplaced == {"mixed/b": ("tench, Tinca tinca",)}
    with Atlas.open(path) as atlas:
        assert [point.index for point in atlas.embedding("mixed/b")] == [0, 5]


def test_an_ingest_makes_places_where_there_are_new_counts_or_none(tmp_path: Path) -> None:
    root = write_digits(tmp_path / "digits", 3)
    path = tmp_path / "atlas"
    ingest(model=MODEL, images=root, atlas=path, embedding=False, workers=1)
    assert table(path) is None
    assert ingest(model=MODEL, images=root, atlas=path, workers=1).new == 0
    first = table(path)
    assert first is not None
    assert first.num_rows == 40
    write_digits(root, 4)
    assert ingest(model=MODEL, images=root, atlas=path, workers=1).new == 10
    assert table(path) not in (None, first)
