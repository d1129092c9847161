from __future__ import annotations

import random
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from atlas import made
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from summit_graph.atlas import tables as tables_module
from summit_graph.atlas.schema import ATLAS_TABLES, KEYS
from summit_graph.atlas.store import ImageEntry, Store
from summit_graph.atlas.tables import build_tables, compact
from summit_graph.errors import AtlasError


def assert_sums(path: Path, images: list[ImageEntry], grouping: str = "label") -> None:
    """Every counted table equals the plain sums over the images, row by row."""
    found = made.tables(path)
    for name, rows in made.sums(images, grouping).items():
        assert found[name].schema.equals(ATLAS_TABLES[name]), name
        got = made.rows(found[name])
        if name == "classes":
            assert [row[:4] + row[6:] for row in got] == [row[:4] + row[6:] for row in rows]
            for row, expected in zip(got, rows, strict=True):
                assert row[4:6] == pytest.approx(expected[4:6])
        else:
            assert got == rows, name


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    count=st.integers(1, 40),
    shard_size=st.integers(1, 9),
    seed=st.integers(0, 99),
    grouping=st.sampled_from(["label", "prediction"]),
    at_once=st.sampled_from([1, 50, 10**6]),
)
def test_tables_are_the_sums_over_the_images(
    tmp_path_factory, count: int, shard_size: int, seed: int, grouping: str, at_once: int
) -> None:
    path = tmp_path_factory.mktemp("sums") / "atlas"
    parameters = {**made.description().parameters, "shard_size": shard_size}
    images = made.images(count)
    random.Random(seed).shuffle(images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables_module, "_ROW_BYTES", tables_module.MEMORY // at_once)
        with Store.create(
            path, made.description(grouping=grouping, parameters=parameters)
        ) as store:
            store.plan(images[: count // 2])
            made.count(store, grouping=grouping)
            store.plan(images)
            made.count(store, grouping=grouping)
            build_tables(store, threads=1)
            assert_sums(path, images, grouping)
            first = made.tables(path)
            compact(store, threads=1)
            assert len(store.finished()) == 1
            build_tables(store, threads=1)
    assert made.tables(path) == first


def test_a_pencil_case(tmp_path: Path) -> None:
    """Two images of one class in two shards: 2 + 1 active, and the larger activation first."""
    images = [ImageEntry("a/1", "a", 0, 1, "h1"), ImageEntry("b/2", "b", 0, 1, "h2")]

    def shard(image: ImageEntry, active: list[tuple[int, int]], activation: float):
        empty = made.shard_tables([])
        row = (image.path, 1, image.hash, 0, 0, 0, 0.95, 1, "ok")
        return {
            **empty,
            "images": made.table(empty["images"].schema, [row]),
            "activations": made.table(
                empty["activations"].schema, [(0, 0, channel, count) for channel, count in active]
            ),
            "examples": made.table(
                empty["examples"].schema, [(None, 0, 4, image.path, activation, 1, 2)]
            ),
        }

    with Store.create(tmp_path / "atlas", made.description()) as store:
        store.plan(images)
        store.write_shard(0, shard(images[0], [(4, 1), (2, 1)], 0.5))
        store.write_shard(1, shard(images[1], [(4, 1)], 1.5))
        build_tables(store, threads=1)
        compact(store, threads=1)
        build_tables(store, threads=1)
    found = made.tables(tmp_path / "atlas")
    assert made.rows(found["activations"]) == [(0, 0, 2, 1), (0, 0, 4, 2)]
    assert made.rows(found["examples"]) == [
        (None, 0, 4, 1, 1, 1.5, 1, 2),
        (None, 0, 4, 2, 0, 0.5, 1, 2),
    ]
    bins = [0] * 9 + [2]
    assert made.rows(found["classes"])[0] == (0, "white wolf", "n02114548", 2, 1.0, 1.0, bins)
    assert made.rows(found["confusions"]) == []
    assert made.rows(found["classes"])[1][3:] == (0, None, None, None)


def test_probability_bins_are_exact(tmp_path: Path) -> None:
    """0.3 as float32 lies above three tenths, 0.7 below seven tenths; 1 is in the last bin."""
    values = [0.0, 0.3, 0.7, 0.999, 1.0, float("nan")]
    images = [ImageEntry(f"a/{at}", "a", 0, 1, f"h{at}") for at in range(len(values))]
    parameters = {**made.description().parameters, "shard_size": 9}
    with Store.create(tmp_path / "atlas", made.description(parameters=parameters)) as store:
        store.plan(images)
        shard = made.shard_tables([])
        shard["images"] = made.table(
            shard["images"].schema,
            [
                (image.path, 1, image.hash, 0, 0, 0, value, 1, "ok")
                for image, value in zip(images, values, strict=True)
            ],
        )
        store.write_shard(0, shard)
        table = build_tables(store, threads=1).table("classes")
    assert table.column("probability").to_pylist()[0] == [1, 0, 0, 1, 0, 0, 1, 0, 0, 2]


def test_examples_per_class(tmp_path: Path) -> None:
    images = made.images(40)
    with Store.create(tmp_path / "atlas", made.description()) as store:
        store.plan(images)
        made.count(store, per_class=True)
        generation = build_tables(store, threads=1)
        numbers = {row[1]: row[0] for row in made.rows(generation.table("images"))}
        for index in (None, 0, 2):
            found = made.rows(generation.of_class("examples", index))
            expected = []
            for layer in made.LAYERS:
                for channel in range(made.CHANNELS):
                    best = sorted(
                        (-activation, numbers[image.path], activation, row, column)
                        for image in images
                        for counts in [made.image_counts(image)]
                        if index is None or counts["row"]["class"] == index
                        for place, at, activation, row, column in counts["examples"]
                        if (place, at) == (layer.number, channel)
                    )
                    expected += [
                        (index, layer.number, channel, rank, *example[1:])
                        for rank, example in enumerate(best[:3], 1)
                    ]
            assert found == expected
        first = made.tables(store.path)
        compact(store, threads=1)
        build_tables(store, threads=1)
    assert made.tables(tmp_path / "atlas") == first


def test_keys_are_unique_and_sorted(tmp_path: Path) -> None:
    for name, table in made.tables(made.atlas(tmp_path / "atlas", made.images(60))).items():
        keys = list(
            zip(*(table.column(key).fill_null(-1).to_pylist() for key in KEYS[name]), strict=True)
        )
        assert keys == sorted(set(keys)), name
        assert not pa.types.is_floating(table.schema.field(KEYS[name][-1]).type)


def test_counts_read_by_class_are_those_of_the_tables(tmp_path: Path) -> None:
    with Store.create(tmp_path / "atlas", made.description()) as store:
        store.plan(made.images(40))
        made.count(store)
        generation = build_tables(store, threads=1)
    for index in (0, 2, 5):
        influences = [
            (index, hop, *row)
            for hop, columns in generation.class_influences(index).items()
            for row in zip(*(column.tolist() for column in columns), strict=True)
        ]
        table = made.rows(generation.table("influences"))
        assert influences == [row for row in table if row[0] == index]
        for name, read in (
            ("activations", generation.class_activations),
            ("raw_votes", generation.class_raw_votes),
        ):
            found = [
                (index, layer, *row)
                for layer, columns in read(index).items()
                for row in zip(*(column.tolist() for column in columns), strict=True)
            ]
            assert found == [row for row in made.rows(generation.table(name)) if row[0] == index]


def test_every_class_has_a_row_and_a_ranking_is_dropped(tmp_path: Path) -> None:
    path = made.atlas(tmp_path / "atlas", made.images(9))
    with Store.open_for_writing(path) as store:
        assert store.up_to_date()
        store.plan(made.images(11))
        assert not store.up_to_date()
        with pytest.raises(AtlasError, match=r"shards of .* are not counted yet"):
            build_tables(store)
        made.count(store)
        generation = build_tables(store, threads=1)
        assert store.up_to_date()
    assert generation.table("classes").column("class").to_pylist() == [0, 2, 5]
    assert not generation.has("ranks")
    assert "ranking" not in generation.header


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    with Store.create(tmp_path / "atlas", made.description()) as store:
        store.plan(made.images(20))
        made.count(store)
        build_tables(store, threads=1)
        before = made.tables(store.path)
        file = store.shard_folder(2) / "influences.parquet"
        file.write_bytes(file.read_bytes()[:-7])
        with pytest.raises(AtlasError, match=r"shard 2 is damaged: .* Remove the folder"):
            build_tables(store, threads=1)
        assert made.tables(store.path) == before
        shutil.rmtree(store.shard_folder(2))
        assert store.pending() == [2]
        made.count(store)
        build_tables(store, threads=1)
        assert made.tables(store.path) == before


def test_an_atlas_without_images_cannot_be_made_into_tables(tmp_path: Path) -> None:
    with (
        Store.create(tmp_path / "atlas", made.description()) as store,
        pytest.raises(AtlasError, match=r"no image is counted"),
    ):
        build_tables(store)


def test_too_little_memory_says_so(tmp_path: Path) -> None:
    with Store.create(tmp_path / "atlas", made.description()) as store:
        store.plan(made.images(20))
        made.count(store)
        with pytest.raises(AtlasError, match=r"Give more memory"):
            build_tables(store, memory=1 << 16, threads=1)
        build_tables(store, threads=1)


def test_names_with_signs_of_patterns_are_taken_as_they_are(tmp_path: Path) -> None:
    images = made.images(9)
    decoy = made.atlas(tmp_path / "x1", made.images(30))
    path = made.atlas(tmp_path / "x[1]*?{a,b}'\"" / "class=3", images)
    assert_sums(path, images)
    assert_sums(decoy, made.images(30))


def test_compacting_one_shard_does_nothing(tmp_path: Path) -> None:
    with Store.create(tmp_path / "atlas", made.description()) as store:
        store.plan(made.images(3, folders=("a",)))
        made.count(store)
        assert compact(store) is None


def test_images_are_added_after_compacting(tmp_path: Path) -> None:
    with Store.create(tmp_path / "atlas", made.description()) as store:
        store.plan(made.images(20))
        made.count(store)
        compact(store, threads=1)
        store.plan(made.images(31))
        assert len(store.finished()) == 1
        made.count(store)
        build_tables(store, threads=1)
    assert_sums(tmp_path / "atlas", made.images(31))
