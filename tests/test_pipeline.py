from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from digit_folders import MODEL, NAMES, write_digits
from PIL import Image

from summit_graph import Atlas, Ranking, ingest, merge, rerank
from summit_graph.atlas import thumbnails
from summit_graph.atlas.generation import Generation
from summit_graph.errors import AtlasError, ImageError, UnknownNeuron, UsageError
from summit_graph.images.sources import DatasetSource, FolderSource
from summit_graph.network.loading import load_model

TABLES = (
    "layers", "hops", "classes", "activations", "influences", "edges", "ranks", "selections",
    "images", "examples", "votes", "confusions", "similarity", "embedding",
    "receptive_fields",
)  # fmt: skip


def tables(atlas: Path) -> dict[str, pa.Table]:
    return {name: pq.read_table(atlas / f"{name}.parquet") for name in TABLES}


def assert_equal_atlases(one: Path, other: Path) -> None:
    left, right = tables(one), tables(other)
    for name in TABLES:
        assert left[name].equals(right[name]), f"table {name} differs"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"), per_class=40)


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    atlas = tmp_path_factory.mktemp("whole") / "atlas"
    report = ingest(model=MODEL, images=photos, atlas=atlas, shard_size=16, batch_size=8)
    assert (report.images, report.counted, report.new) == (400, 400, 400)
    assert report.top1 is not None
    assert report.top1 > 0.97
    assert report.ranking.with_graph == 10
    assert report.warnings == ()
    return atlas


def test_what_always_holds(whole: Path) -> None:
    found = tables(whole)
    images = dict(
        zip(
            found["classes"]["class"].to_pylist(), found["classes"]["images"].to_pylist(),
            strict=True,
        )
    )  # fmt: skip
    assert set(images.values()) == {40}
    assert all(
        count <= images[c]
        for c, count in zip(
            found["activations"]["class"].to_pylist(), found["activations"]["count"].to_pylist(),
            strict=True,
        )
    )  # fmt: skip
    hops = {row["hop"]: row for row in found["hops"].to_pylist()}
    per_target: dict[tuple[int, int, int], int] = {}
    for row in found["influences"].to_pylist():
        key = (row["class"], hops[row["hop"]]["target"], row["target"])
        per_target[key] = per_target.get(key, 0) + row["count"]
    assert max(per_target.values()) <= 5 * 40
    totals: dict[int, float] = {}
    for row in found["ranks"].to_pylist():
        totals[row["class"]] = totals.get(row["class"], 0.0) + row["pagerank"]
    assert len(totals) == 10
    assert all(abs(total - 1) < 1e-9 for total in totals.values())


def test_ingest_again_changes_nothing(photos: Path, whole: Path) -> None:
    before = {name: (whole / f"{name}.parquet").read_bytes() for name in TABLES}
    report = ingest(model=MODEL, images=photos, atlas=whole, shard_size=16, batch_size=8)
    assert report.new == 0
    assert report.images == 400
    assert before == {name: (whole / f"{name}.parquet").read_bytes() for name in TABLES}


def test_images_added_later_equal_one_run(whole: Path, tmp_path: Path) -> None:
    root = write_digits(tmp_path / "digits", 40, NAMES[:5])
    first = ingest(model=MODEL, images=root, atlas=tmp_path / "a", shard_size=16, batch_size=8)
    assert (first.new, first.classes) == (200, 5)
    write_digits(root, 40, NAMES[5:])
    second = ingest(model=MODEL, images=root, atlas=tmp_path / "a", shard_size=16, batch_size=8)
    assert (second.new, second.images) == (200, 400)
    assert_equal_atlases(tmp_path / "a", whole)


def test_merge_equals_one_run(whole: Path, tmp_path: Path) -> None:
    for name, classes in (("a", NAMES[:3]), ("b", NAMES[3:])):
        root = write_digits(tmp_path / f"{name}-digits", 40, classes)
        ingest(model=MODEL, images=root, atlas=tmp_path / name, shard_size=16, batch_size=8)
    report = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "ab")
    assert report.with_graph == 10
    merge([tmp_path / "b", tmp_path / "a"], tmp_path / "ba")
    assert_equal_atlases(tmp_path / "ab", whole)
    assert_equal_atlases(tmp_path / "ab", tmp_path / "ba")
    with pytest.raises(AtlasError, match="--allow-duplicates"):
        merge([tmp_path / "a", tmp_path / "ab"], tmp_path / "c")


def test_rank_again_with_other_parameters(whole: Path, photos: Path, tmp_path: Path) -> None:
    atlas = tmp_path / "atlas"
    ingest(model=MODEL, images=photos, atlas=atlas, shard_size=16, batch_size=8)
    untouched = (atlas / "influences.parquet").read_bytes()
    rerank(atlas, Ranking(mass=0.5))
    with Atlas.open(atlas) as ranked, Atlas.open(whole) as before:
        assert all(r.mass is not None and r.mass >= 0.5 for r in ranked.classes)
        wide, narrow = (a.attribution_graph("seven") for a in (ranked, before))
        assert {n.name for n in narrow.neurons} < {n.name for n in wide.neurons}
        strongest = wide.neurons[0].name
    rerank(atlas, Ranking(exclude=(strongest,)))
    with Atlas.open(atlas) as ranked:
        assert strongest not in {n.name for n in ranked.attribution_graph("seven").neurons}
    with pytest.raises(UnknownNeuron, match="conv1"):
        rerank(atlas, Ranking(exclude=("nothing/*",)))
    rerank(atlas)
    assert_equal_atlases(atlas, whole)
    assert untouched == (atlas / "influences.parquet").read_bytes()


def test_several_processes_rank_alike(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atlas = tmp_path / "atlas"
    ingest(model=MODEL, images=photos, atlas=atlas)
    before = tables(atlas)
    monkeypatch.setattr("summit_graph.rank.stage._FEW_CLASSES", 2)
    rerank(atlas, workers=2)
    after = tables(atlas)
    assert all(before[name].equals(after[name]) for name in TABLES)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"activation_mass": 0.05}, "parameters.mass"),
        ({"top_sources": 3}, "parameters.k"),
        ({"layers": ["conv1", "conv3"]}, "layers"),
        ({"group_by": "prediction"}, "grouping"),
        ({"batch_size": 4}, "parameters.batch_size"),
    ],
)
def test_another_run_on_the_same_atlas_is_refused(
    whole: Path, photos: Path, change: dict[str, object], where: str
) -> None:
    before = {name: (whole / f"{name}.parquet").read_bytes() for name in TABLES}
    options = {"shard_size": 16, "batch_size": 8, **change}
    with pytest.raises(AtlasError, match=where):
        ingest(model=MODEL, images=photos, atlas=whole, **options)  # type: ignore[arg-type]
    assert before == {name: (whole / f"{name}.parquet").read_bytes() for name in TABLES}


def test_broken_images_are_left_out_and_reported(photos: Path, tmp_path: Path) -> None:
    root = write_digits(tmp_path / "digits", 4)
    (root / "one" / "empty.png").write_bytes(b"")
    (root / "two" / "half.png").write_bytes((next((root / "two").iterdir())).read_bytes()[:60])
    (root / "two" / "notes.txt").write_text("no image")
    report = ingest(model=MODEL, images=root, atlas=tmp_path / "a")
    assert (report.images, report.counted, report.passed_over) == (42, 40, 1)
    assert {entry.path: entry.status for entry in report.left_out} == {
        "one/empty.png": "empty file", "two/half.png": "truncated",
    }  # fmt: skip
    with pytest.raises(ImageError, match=r"one/empty\.png: empty file"):
        ingest(model=MODEL, images=root, atlas=tmp_path / "b", strict=True)
    again = ingest(model=MODEL, images=root, atlas=tmp_path / "b")
    assert again.counted == 40
    assert_equal_atlases(tmp_path / "a", tmp_path / "b")


def test_images_that_changed_or_are_gone_are_an_error(tmp_path: Path) -> None:
    root = write_digits(tmp_path / "digits", 3)
    ingest(model=MODEL, images=root, atlas=tmp_path / "a")
    before = {name: (tmp_path / "a" / f"{name}.parquet").read_bytes() for name in TABLES}
    changed = sorted((root / "six").iterdir())[0]
    content = changed.read_bytes()
    Image.new("L", (8, 8), 255).save(changed)
    with pytest.raises(AtlasError, match=f"six/{changed.name}"):
        ingest(model=MODEL, images=root, atlas=tmp_path / "a")
    changed.unlink()
    with pytest.raises(AtlasError, match=f"six/{changed.name}"):
        ingest(model=MODEL, images=root, atlas=tmp_path / "a")
    changed.write_bytes(content)
    assert ingest(model=MODEL, images=root, atlas=tmp_path / "a").new == 0
    assert before == {name: (tmp_path / "a" / f"{name}.parquet").read_bytes() for name in TABLES}


def test_groups_and_predictions(tmp_path: Path) -> None:
    root = write_digits(tmp_path / "digits", 6)
    groups = tmp_path / "groups.csv"
    groups.write_text("index,group\n0,round\n8,round\n1,straight\n7,straight\n")
    report = ingest(model=MODEL, images=root, atlas=tmp_path / "g", group_by=str(groups))
    assert (report.images, report.counted, report.without_class) == (60, 24, 36)
    with Atlas.open(tmp_path / "g") as atlas:
        assert [(c.name, c.images) for c in atlas.classes] == [("round", 12), ("straight", 12)]
    found = tables(tmp_path / "g")
    assert set(found["activations"]["class"].to_pylist()) == {0, 1}
    unclassed = [r for r in found["images"].to_pylist() if r["class"] is None]
    assert len(unclassed) == 36
    assert all(r["predicted"] is not None and r["status"] == "ok" for r in unclassed)
    used = {row["image"] for row in found["examples"].to_pylist()}
    assert not used & {row["image"] for row in unclassed}

    flat = tmp_path / "flat"
    flat.mkdir()
    for number, file in enumerate(sorted(root.rglob("*.png"))):
        (flat / f"{number:03}.png").write_bytes(file.read_bytes())
    report = ingest(model=MODEL, images=flat, atlas=tmp_path / "p", group_by="prediction")
    assert (report.counted, report.top1) == (60, None)
    with pytest.raises(UsageError, match="no labels"):
        ingest(model=MODEL, images=flat, atlas=tmp_path / "q")


def test_chance_is_reported(tmp_path: Path) -> None:
    root = write_digits(tmp_path / "digits", 10)
    names = [*NAMES[1:], NAMES[0]]
    for name in NAMES:
        (root / name).rename(root / f"_{name}")
    for name, other in zip(NAMES, names, strict=True):
        (root / f"_{name}").rename(root / other)
    report = ingest(model=MODEL, images=root, atlas=tmp_path / "a")
    assert report.top1 == 0
    assert any("not above chance" in warning for warning in report.warnings)


def pictures(atlas: Path) -> dict[str, bytes]:
    """The thumbnails of an atlas: hash of the image -> file."""
    return {file.stem: file.read_bytes() for file in atlas.glob("thumbnails/*/*")}


def held(atlas: Path) -> dict[str, pa.Table]:
    """All tables of an atlas, whichever it has."""
    generation = Generation.current(atlas)
    return {name: generation.table(name) for name in generation.tables()}


class Watched:
    """A progress that does something when a stage begins, and after its first step."""

    def __init__(self, title: str, begin: Callable[[], None], step: Callable[[], None]):
        self.title, self.begin, self.step = title, begin, step
        self.warnings: list[str] = []

    @contextmanager
    def stage(self, title: str, total: int | None, unit: str) -> Iterator[Watched]:
        self.now = title
        if title == self.title:
            self.begin()
        yield self

    def advance(self, count: int = 1) -> None:
        if self.now == self.title:
            self.step()

    def note(self, text: str) -> None:
        pass

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def nothing() -> None:
    pass


def test_thumbnails_are_what_the_network_saw(photos: Path, whole: Path) -> None:
    found = pictures(whole)
    assert set(found) == set(thumbnails.wanted(Generation.current(whole)))
    assert 50 < len(found) < 400
    preprocessing = load_model(MODEL).preprocessing
    source = FolderSource(photos)
    seen = 0
    for item in source.items():
        content = source.read(item)
        if content.hash in found:
            seen += 1
            assert isinstance(content.image, bytes)
            tensor = preprocessing(Image.open(io.BytesIO(content.image)))
            shown = np.asarray(Image.open(io.BytesIO(found[content.hash])).convert("L"))
            assert np.array_equal(shown, (tensor[0] * 0.375 + 0.305).mul(255).round().numpy())
    assert seen == len(found)


def test_no_thumbnails(tmp_path: Path) -> None:
    """Where they are not wanted nothing in the atlas holds a pixel, and no later run adds one."""
    root = write_digits(tmp_path / "digits", 3)
    atlas = tmp_path / "a"
    ingest(model=MODEL, images=root, atlas=atlas, thumbnails=False, embedding=False)
    write_digits(root, 4)
    assert ingest(model=MODEL, images=root, atlas=atlas, embedding=False).new == 10
    assert json.loads((atlas / "atlas.json").read_text())["thumbnails"] is False
    assert not (atlas / "thumbnails").exists()
    assert {file.suffix for file in atlas.rglob("*") if file.is_file()} == {
        ".json", ".parquet", "",
    }  # fmt: skip
    before = held(atlas)
    assert before["receptive_fields"].num_rows == 4
    ingest(model=MODEL, images=root, atlas=atlas, thumbnails=True, embedding=False)
    made = pictures(atlas)
    assert set(made) == set(thumbnails.wanted(Generation.current(atlas)))
    ingest(model=MODEL, images=root, atlas=atlas, embedding=False)
    assert pictures(atlas) == made
    ingest(model=MODEL, images=root, atlas=atlas, thumbnails=False, embedding=False)
    assert not (atlas / "thumbnails").exists()
    assert not list(atlas.glob(".tmp-*"))
    assert held(atlas) == before


def test_an_image_that_changed_since_it_was_counted_has_no_thumbnail(tmp_path: Path) -> None:
    root = write_digits(tmp_path / "digits", 3)
    atlas = tmp_path / "a"
    files = sorted(root.rglob("*.png"))
    kept = {file: file.read_bytes() for file in files}

    def change() -> None:
        wanted = thumbnails.wanted(Generation.current(atlas)).values()
        first, second, third = [root / path for path in sorted(wanted)][:3]
        Image.new("L", (8, 8), 77).save(first)
        second.unlink()
        third.write_bytes(b"")

    watched = Watched("making thumbnails", change, nothing)
    ingest(model=MODEL, images=root, atlas=atlas, progress=watched, embedding=False)
    assert len(watched.warnings) == 1
    assert watched.warnings[0].startswith("3 images have no thumbnail: ")
    assert "its content is no longer what was counted" in watched.warnings[0]
    assert "cannot be read" in watched.warnings[0]
    wanted = thumbnails.wanted(Generation.current(atlas))
    assert len(pictures(atlas)) == len(wanted) - 3
    for file, content in kept.items():
        file.write_bytes(content)
    ingest(model=MODEL, images=root, atlas=atlas, embedding=False)
    assert set(pictures(atlas)) == set(wanted)


def test_a_run_that_is_cut_off_among_thumbnails_goes_on(tmp_path: Path) -> None:
    root = write_digits(tmp_path / "digits", 12)
    atlas = tmp_path / "a"

    def stop() -> None:
        raise KeyboardInterrupt

    watched = Watched("making thumbnails", nothing, stop)
    with pytest.raises(KeyboardInterrupt):
        ingest(model=MODEL, images=root, atlas=atlas, progress=watched, workers=1, embedding=False)
    before, some = held(atlas), pictures(atlas)
    assert 0 < len(some) < len(thumbnails.wanted(Generation.current(atlas)))
    ingest(model=MODEL, images=root, atlas=atlas, embedding=False)
    ingest(model=MODEL, images=root, atlas=tmp_path / "b", embedding=False)
    assert pictures(atlas) == pictures(tmp_path / "b")
    assert held(atlas) == before


class Tensors:
    """Preprocessed digits as a data set gives them; values of two kinds of normalisation."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        values = torch.arange(64.0).reshape(1, 8, 8).roll(number) / 63
        return (values - 0.305) / 0.375 if number < 3 else values * 500, number


def test_thumbnails_of_preprocessed_images(tmp_path: Path) -> None:
    source = DatasetSource(Tensors(), "tensors")
    ingest(model=MODEL, images=source, atlas=tmp_path / "a", embedding=False)
    found = pictures(tmp_path / "a")
    assert len(found) == 4
    for number, item in enumerate(source.items()):
        shown = Image.open(io.BytesIO(found[source.read(item).hash])).convert("L")
        values = np.rint(np.roll(np.arange(64), number) * (255 / 63)).astype(int)
        assert np.abs(np.asarray(shown).reshape(-1).astype(int) - values).max() <= 1


RUN = """
import sys
from summit_graph import ingest
ingest(model=sys.argv[1], images=sys.argv[2], atlas=sys.argv[3], shard_size=16, batch_size=8)
"""


@pytest.mark.slow
def test_killed_ten_times_and_resumed(photos: Path, whole: Path, tmp_path: Path) -> None:
    chance = random.Random(1)
    atlas = tmp_path / "atlas"
    command = [sys.executable, "-c", RUN, MODEL, str(photos), str(atlas)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed, seen = 0, set()
    while killed < 10:
        finished = {
            path.name: path.stat().st_mtime_ns for path in (atlas / "shards").glob("[0-9]*")
        }
        process = subprocess.Popen(command, env=environment)
        wanted = len(finished) + chance.randint(1, 2)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if len(list((atlas / "shards").glob("[0-9]*"))) >= wanted:
                break
            time.sleep(0.001)
        time.sleep(chance.random() * 0.03)
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
        for name, changed in finished.items():
            assert (atlas / "shards" / name).stat().st_mtime_ns == changed, "counted twice"
        seen.add(len(finished))
    assert len(seen) > 3
    subprocess.run(command, env=environment, check=True)
    assert_equal_atlases(atlas, whole)
