from __future__ import annotations

import os
import pickle
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from atlas import made
from hypothesis import given, settings
from hypothesis import strategies as st

from summit_graph.atlas.atlas import Atlas
from summit_graph.atlas.files import TableWriter, is_temporary
from summit_graph.atlas.generation import Generation
from summit_graph.atlas.schema import ATLAS_TABLES, ROW_GROUP
from summit_graph.atlas.store import ImageEntry, Store, _arranged, write_shard
from summit_graph.atlas.tables import build_tables
from summit_graph.errors import AtlasError


def snapshot(folder: Path) -> dict[str, bytes | str]:
    """Every file of a folder but the lock, by name: its bytes, or where it links to."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if (path.is_symlink() or path.is_file()) and path.name != ".lock"
    }


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 99)), unique=True, min_size=1),
    st.integers(1, 7),
    st.integers(1, 4),
    st.integers(0, 5),
)
def test_shards_are_runs_of_one_folder_in_path_order(
    names: list[tuple[str, int]], shard_size: int, batch_size: int, first: int
) -> None:
    images = [ImageEntry(f"{f}/{n:02d}", f, 0, 1, "h") for f, n in names]
    rows = _arranged(images, first, shard_size, batch_size).to_pylist()
    assert sorted(row["path"] for row in rows) == sorted(image.path for image in images)
    numbers = []
    for number, group in groupby(rows, key=lambda row: row["shard"]):
        shard = list(group)
        numbers.append(number)
        assert len(shard) <= shard_size
        assert len({row["folder"] for row in shard}) == 1
        assert [row["path"] for row in shard] == sorted(row["path"] for row in shard)
        assert [row["batch"] for row in shard] == [at // batch_size for at in range(len(shard))]
    assert numbers == list(range(first, first + len(numbers)))
    smallest = sum(
        -(-sum(1 for _ in group) // shard_size) for _, group in groupby(sorted(f for f, _ in names))
    )
    assert len(numbers) == smallest


def test_planning_the_same_again_changes_nothing(tmp_path: Path) -> None:
    with Store.create(tmp_path / "atlas", made.description()) as store:
        pending = store.plan(made.images(20))
        before = snapshot(store.path)
        assert store.plan(reversed(made.images(20))) == pending
        assert snapshot(store.path) == before
    with Store.open_for_writing(tmp_path / "atlas") as store:
        assert store.plan(made.images(20)) == pending
        assert snapshot(store.path) == before


def test_new_images_go_to_new_shards(tmp_path: Path) -> None:
    with Store.create(tmp_path / "atlas", made.description()) as store:
        first = store.plan(made.images(9))
        kept = {number: store.shard(number) for number in first}
        made.count(store)
        second = store.plan(made.images(20))
        assert min(second) == max(first) + 1
        assert store.finished() == first
        assert {number: store.shard(number) for number in first} == kept
        new = [image.path for number in second for image in store.shard(number).images]
        assert sorted(new) == sorted(image.path for image in made.images(11, start=9))


def test_a_shard_has_its_batches(tmp_path: Path) -> None:
    with Store.create(tmp_path / "atlas", made.description()) as store:
        store.plan(made.images(7, folders=("a",)))
        shard = store.shard(0)
        assert [len(batch) for batch in shard.batches] == [3, 1]
        assert shard.images == tuple(made.images(7, folders=("a",))[:4])
        assert pickle.loads(pickle.dumps(shard)) == shard
        with pytest.raises(AtlasError, match=r"no shard 9 is planned"):
            store.shard(9)


def changed(images: list[ImageEntry], at: int, **values: object) -> list[ImageEntry]:
    return [*images[:at], images[at]._replace(**values), *images[at + 1 :]]


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (changed(made.images(9), 4, hash="other"), r"1 image is .*b/0004.png \(its content chan"),
        (changed(made.images(9), 4, label=3), r"b/0004.png \(its label was 4 and is 3\)"),
        (made.images(9)[:8], r"c/0008.png \(gone\)"),
        ([], r"9 images are .*a/0000.png \(gone\), a/0003.png \(gone\), .* and 6 more"),
        ([*made.images(9), made.images(9)[2]], "two images have the path 'c/0002.png'"),
        (
            [*made.images(9), ImageEntry("a/\udcff.png", "a", None, 1, "h")],
            "Paths have to be valid Unicode",
        ),
    ],
)
def test_images_that_changed_are_named_and_nothing_is_changed(
    tmp_path: Path, now: list[ImageEntry], message: str
) -> None:
    path = made.atlas(tmp_path / "atlas", made.images(9))
    before = snapshot(path)
    with Store.open_for_writing(path) as store:
        with pytest.raises(AtlasError, match=message):
            store.plan(now)
        assert store.pending() == []
        assert store.plan(made.images(9)) == []
    assert snapshot(path) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights_hash": "bb"}, 'weights_hash is "aaaa.*" there and "bb" now'),
        ({"grouping": "prediction"}, 'grouping is "label" there and "prediction" now'),
        ({"preprocessing": {"size": [9, 8], "mean": [0.5]}}, r"preprocessing.size\[0\] is 8"),
        ({"classes": made.CLASSES[:2]}, "the length of classes is 3 there and 2 now"),
        ({"layers": made.LAYERS[:3]}, "the length of layers"),
        (
            {"parameters": {**made.description().parameters, "mass": 0.05}},
            "parameters.mass is 0.03 there and 0.05 now",
        ),
    ],
)
def test_other_parameters_are_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = made.atlas(tmp_path / "atlas", made.images(5))
    before = snapshot(path)
    with pytest.raises(AtlasError, match=message):
        Store.open_or_create(path, made.description(**changes))
    assert snapshot(path) == before
    Store.open_or_create(path, made.description(name="another name")).close()


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with Store.create(tmp_path / "atlas", made.description()) as store:
        with pytest.raises(AtlasError, match=rf"in use by another run \(process {os.getpid()}\)"):
            Store.open_for_writing(store.path)
        with pytest.raises(AtlasError, match=r"in use"):
            Store.open_or_create(store.path, made.description())
        made_here = store.plan(made.images(5))
        store.write_shard(0, made.shard_tables(store.shard(0).images))
        assert store.pending() == made_here[1:]
    Store.open_for_writing(tmp_path / "atlas").close()


def test_a_killed_run_lets_go_of_the_lock(tmp_path: Path) -> None:
    path = made.atlas(tmp_path / "atlas", made.images(5))
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time\n"
            "from summit_graph.atlas.store import Store\n"
            "store = Store.open_for_writing(sys.argv[1])\n"
            "print('held', flush=True)\n"
            "time.sleep(60)\n",
            str(path),
        ],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(AtlasError, match=rf"process {holder.pid}"):
        Store.open_for_writing(path)
    with Atlas.open(path) as atlas:
        assert len(atlas.classes) == 3
    holder.kill()
    holder.wait()
    Store.open_for_writing(path).close()


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(AtlasError, match=r"neither an atlas nor empty \(it holds 'thesis.tex'\)"):
        Store.create(tmp_path, made.description())
    with pytest.raises(AtlasError, match=r"is not an atlas: it has no atlas.json"):
        Store.open_for_writing(tmp_path)
    with pytest.raises(AtlasError, match=r"no such folder"):
        Store.open_for_writing(tmp_path / "nowhere")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    path = made.atlas(tmp_path / "atlas", made.images(3))
    with pytest.raises(AtlasError, match=r"is an atlas already"):
        Store.create(path, made.description())


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = made.atlas(tmp_path / "atlas", made.images(3))
    header = (path / "atlas.json").resolve()
    header.write_text(header.read_text().replace('"format": 1', '"format": 99'))
    for opening in (Atlas.open, Store.open_for_writing):
        with pytest.raises(AtlasError, match=r"has format 99, .* install a newer one"):
            opening(path)
    header.write_text("{")
    with pytest.raises(AtlasError, match=r"atlas\.json cannot be read"):
        Atlas.open(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {**t, "extra": t["votes"]}, "a shard has the tables"),
        (lambda t: {**t, "images": t["images"].slice(1)}, "images of shard 0 are not those plan"),
        (
            lambda t: {
                **t,
                "images": t["images"].set_column(2, "hash", pa.array(["x"] * t["images"].num_rows)),
            },
            "changed while they were counted",
        ),
        (
            lambda t: {
                **t,
                "votes": made.table(ATLAS_TABLES["votes"], [(0, 0, 0, 0)]),
            },
            "count below 1",
        ),
        (
            lambda t: {
                **t,
                "activations": made.table(ATLAS_TABLES["votes"], [(-1, 0, 0, 3)]),
            },
            "class below 0",
        ),
        (lambda t: {**t, "votes": t["votes"].drop(["count"])}, "'votes' has the columns"),
    ],
)
def test_a_shard_that_does_not_fit_is_refused(tmp_path: Path, change, message: str) -> None:
    with Store.create(tmp_path / "atlas", made.description()) as store:
        pending = store.plan(made.images(5))
        before = snapshot(store.path)
        with pytest.raises(AtlasError, match=message):
            store.write_shard(0, change(made.shard_tables(store.shard(0).images)))
        assert snapshot(store.path) == before
        assert store.pending() == pending


def test_a_finished_shard_stays_as_it_is(tmp_path: Path) -> None:
    with Store.create(tmp_path / "atlas", made.description()) as store:
        store.plan(made.images(5))
        tables = made.shard_tables(store.shard(0).images)
        write_shard(store.path, 0, tables)
        before = snapshot(store.shard_folder(0))
        write_shard(store.path, 0, {**tables, "votes": tables["votes"].slice(0, 0)})
        assert snapshot(store.shard_folder(0)) == before


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    path = made.atlas(tmp_path / "atlas", made.images(5))
    before = made.tables(path)
    for folder in (path, path / "shards", path / ".tables"):
        (folder / ".tmp-1-a").mkdir()
        (folder / ".tmp-1-a" / "part.parquet").write_bytes(b"half")
        (folder / ".tmp-2-b").write_bytes(b"half")
    current = int(os.readlink(path / ".tables" / "current"))
    (path / ".tables" / str(current + 1)).mkdir()
    (path / "shards" / "77").mkdir()
    (path / "votes.parquet").unlink()
    Store.open_for_writing(path).close()
    assert not [found for found in path.rglob("*") if is_temporary(found)]
    assert not (path / "shards" / "77").exists()
    assert not (path / ".tables" / str(current + 1)).exists()
    assert (path / "votes.parquet").is_file()
    assert made.tables(path) == before


def write_and_stop(store: Store, table: pa.Table) -> None:
    with store.draft() as draft:
        draft.append("confusions", table)
        raise KeyboardInterrupt


def test_tables_are_put_in_place_together_or_not_at_all(tmp_path: Path) -> None:
    path = made.atlas(tmp_path / "atlas", made.images(9))
    before = made.tables(path)
    good = before["confusions"].slice(0, 1)
    with Store.open_for_writing(path) as store:
        files = snapshot(path)
        with pytest.raises(AtlasError, match=r"have to rise by their key, each key once"):
            store.replace_tables(
                {
                    "confusions": good,
                    "embedding": [before["embedding"], before["embedding"]],
                }
            )
        with pytest.raises(KeyboardInterrupt):
            write_and_stop(store, good)
        assert snapshot(path) == files
        assert made.tables(path) == before
        generation = store.replace_tables({"confusions": good}, {"ranking": None, "note": 1})
        assert generation.header["note"] == 1
        assert "ranking" not in generation.header
    after = made.tables(path)
    assert after.pop("confusions") == good
    before.pop("confusions")
    assert after == before


def test_several_tables_are_written_side_by_side(tmp_path: Path) -> None:
    path = made.atlas(tmp_path / "atlas", made.images(9))
    before = made.tables(path)
    with Store.open_for_writing(path) as store, store.draft() as draft:
        for index in (0, 2, 5):
            for name in ("edges", "ranks"):
                draft.append(name, store.generation.of_class(name, index))
        draft.publish()
    assert made.tables(path) == before


def test_a_table_made_of_nothing_is_there_and_empty(tmp_path: Path) -> None:
    path = made.atlas(tmp_path / "atlas", made.images(3))
    with Store.open_for_writing(path) as store:
        store.replace_tables({"edges": iter(())})
    table = pq.read_table(path / "edges.parquet")
    assert table.num_rows == 0
    assert table.schema.equals(ATLAS_TABLES["edges"])


def test_the_top_of_the_atlas_links_to_the_tables_that_count(tmp_path: Path) -> None:
    path = made.atlas(tmp_path / "atlas", made.images(9))
    visible = {file.name for file in path.iterdir() if file.suffix in (".parquet", ".json")}
    assert visible == {
        "atlas.json",
        "plan.parquet",
        *(f"{name}.parquet" for name in ATLAS_TABLES if name != "raw_votes"),
    }
    for name, table in made.tables(path).items():
        if name != "raw_votes":
            assert pq.read_table(path / f"{name}.parquet").equals(table)
    with Store.open_for_writing(path) as store:
        store.plan(made.images(12))
        made.count(store)
        build_tables(store, threads=1)
    assert not (path / "ranks.parquet").is_symlink()
    assert (path / "classes.parquet").is_file()


def test_a_reader_keeps_the_tables_it_opened(tmp_path: Path) -> None:
    path = made.atlas(tmp_path / "atlas", made.images(9))
    old = Atlas.open(path)
    expected = {name: old.generation.table(name) for name in old.generation.tables()}
    graph = old.attribution_graph(0)
    with Store.open_for_writing(path) as store:
        store.plan(made.images(30))
        made.count(store)
        build_tables(store, threads=1)
        for _ in range(3):
            made.rank(store)
        kept = [entry for entry in (path / ".tables").iterdir() if entry.name.isdigit()]
        assert len(kept) == 3
        for name, table in expected.items():
            assert old.generation.table(name) == table
        assert old.attribution_graph(0) == graph
        with Atlas.open(path) as new:
            assert new.find(0).images > graph.record.images
        old.close()
        made.rank(store)
        kept = [entry for entry in (path / ".tables").iterdir() if entry.name.isdigit()]
        assert len(kept) == 2
        with pytest.raises(AtlasError, match=r"was made anew since it was opened"):
            old.activations()


def test_a_generation_travels_by_its_path(tmp_path: Path) -> None:
    generation = Generation.current(made.atlas(tmp_path / "atlas", made.images(9)))
    again = pickle.loads(pickle.dumps(generation))
    assert again.class_influences(0).keys() == generation.class_influences(0).keys()
    assert again.header == generation.header


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 3 * ROW_GROUP // 2), max_size=5))
def test_row_groups_depend_on_the_rows_alone(tmp_path_factory, lengths: list[int]) -> None:
    folder = tmp_path_factory.mktemp("rows")
    schema = pa.schema([("a", pa.int64())])
    whole = pa.table({"a": pa.array(range(sum(lengths)), pa.int64())})
    with TableWriter(folder / "parts", schema) as parts:
        start = 0
        for length in lengths:
            parts.write(whole.slice(start, length))
            start += length
    with TableWriter(folder / "whole", schema) as one:
        one.write(whole)
    assert (folder / "parts").read_bytes() == (folder / "whole").read_bytes()
    metadata = pq.read_metadata(folder / "parts")
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    assert sum(sizes) == sum(lengths)
    assert all(size == ROW_GROUP for size in sizes[:-1])


def test_the_classes_of_a_large_table_are_read_by_skipping(tmp_path: Path) -> None:
    path = made.atlas(tmp_path / "atlas", made.images(3))
    table = pa.table(
        {
            "class": pa.array([index for index in range(9) for _ in range(20_000)], pa.int32()),
            "layer": pa.array([0] * 180_000, pa.int16()),
            "channel": pa.array([at for _ in range(9) for at in range(20_000)], pa.int32()),
            "count": pa.array([7] * 180_000, pa.int32()),
        }
    )
    with Store.open_for_writing(path) as store:
        generation = store.replace_tables({"activations": table})
        for index in (0, 3, 8):
            channels, counts = generation.class_activations(index)[0]
            assert channels.tolist() == list(range(20_000))
            assert set(counts.tolist()) == {7}
            read = generation._files["activations"]
            inside = (read.low <= index) & (index <= read.high)
            assert 1 <= inside.sum() <= 2
        assert len(read.low) == 3
        assert generation.class_activations(77) == {}
