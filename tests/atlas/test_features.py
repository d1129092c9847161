from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from atlas import killing

from summit_graph.atlas.features import FOLDER, TABLE, Feature, FeatureStore, read_features
from summit_graph.atlas.files import TEMPORARY
from summit_graph.errors import AtlasError

ROOT = Path(__file__).parents[2]


def pictures(
    channels: Iterable[int], steps: int = 1, variants: int = 2, format_: str = "webp"
) -> list[tuple[Feature, bytes]]:
    """Pictures of neurons of layer 3, their content a text that says what they are."""
    made = []
    for channel in channels:
        for variant in range(variants):
            feature = Feature(
                layer=3,
                channel=channel,
                variant=variant,
                file=f"3-{channel}-{variant}.{format_}",
                activation=channel + 0.5,
                best_example=None if channel == 2 else 0.25,
                steps=steps,
                size=8,
                seed=1 << 40,
            )
            made.append((feature, content(feature)))
    return made


def content(feature: Feature) -> bytes:
    return f"{feature.channel} {feature.variant} {feature.steps}".encode()


def test_what_is_put_is_read(tmp_path: Path) -> None:
    assert read_features(tmp_path) == {}
    with FeatureStore(tmp_path) as store:
        assert store.features == {}
        store.put(pictures([10, 2]))
        store.put(pictures([5], variants=3))
        assert store.features == read_features(tmp_path)
    found = read_features(tmp_path)
    assert list(found) == [(3, 2), (3, 5), (3, 10)]
    assert found[3, 5] == tuple(feature for feature, _ in pictures([5], variants=3))
    for own in found.values():
        for feature in own:
            assert (tmp_path / FOLDER / feature.file).read_bytes() == content(feature)
    table = pq.read_table(tmp_path / FOLDER / TABLE)
    assert [f"{field.name} {field.type}" for field in table.schema] == [
        "layer int16", "channel int32", "variant int8", "file string", "activation float",
        "best_example float", "steps int32", "size int32", "seed int64",
    ]  # fmt: skip
    assert table.column("best_example").to_pylist()[:2] == [None, None]


def test_other_pictures_of_a_neuron_take_the_place_of_all_it_had(tmp_path: Path) -> None:
    with FeatureStore(tmp_path) as store:
        store.put(pictures([1, 2], variants=5))
        store.put(pictures([2], steps=9, variants=2, format_="png"))
    found = read_features(tmp_path)
    assert [(f.file, f.steps) for f in found[3, 2]] == [("3-2-0.png", 9), ("3-2-1.png", 9)]
    files = sorted(path.name for path in (tmp_path / FOLDER).iterdir())
    assert files == [
        ".lock", *(f"3-1-{n}.webp" for n in range(5)), "3-2-0.png", "3-2-1.png", TABLE
    ]  # fmt: skip


def test_one_run_at_a_time_writes(tmp_path: Path) -> None:
    with FeatureStore(tmp_path) as store:
        store.put(pictures([1]))
        with pytest.raises(AtlasError, match="in use by another run"):
            FeatureStore(tmp_path)
        assert (3, 1) in read_features(tmp_path)
    FeatureStore(tmp_path).close()


def test_what_cannot_be_written_or_read_is_explained(tmp_path: Path) -> None:
    with pytest.raises(AtlasError, match=r"could not write to .*absent"):
        FeatureStore(tmp_path / "absent" / "atlas")
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / TABLE).write_bytes(b"PAR1 nonsense")
    for attempt in (read_features, FeatureStore):
        with pytest.raises(AtlasError, match="summit-graph features"):
            attempt(tmp_path)
    (tmp_path / FOLDER / TABLE).unlink()
    FeatureStore(tmp_path).close()


@pytest.mark.parametrize("name", ["../3-1-0.webp", "/etc/passwd", "3-1-0.webp/x", "a.webp", ""])
def test_a_table_that_names_files_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    (feature, data), *_ = pictures([1])
    with FeatureStore(tmp_path) as store:
        store.put([(feature, data)])
        store._write({(3, 1): (replace(feature, file=name),)})
    with pytest.raises(AtlasError, match="no picture"):
        read_features(tmp_path)


# Killed in between


OLD = {1: 1, 2: 1}
NEW = {2: 9, 4: 9}


def prepare(atlas: Path) -> None:
    atlas.mkdir(parents=True)
    with FeatureStore(atlas) as store:
        store.put(pictures(OLD))


def go_on(atlas: Path) -> None:
    with FeatureStore(atlas) as store:
        store.put(pictures(NEW, steps=9, format_="png"))


def seen(atlas: Path) -> dict[str, Any]:
    """steps of each neuron's pictures as the table has them, and whether the files are those."""
    found = read_features(atlas)
    return {
        "steps": {channel: {f.steps for f in own}.pop() for (_, channel), own in found.items()},
        "whole": all(
            len(own) == 2 and all((atlas / FOLDER / f.file).read_bytes() == content(f) for f in own)
            for own in found.values()
        ),
        "files": sorted(path.name for path in (atlas / FOLDER).iterdir()),
    }


def kill_everywhere(folder: Path) -> list[dict[str, Any]]:
    prepare(folder / "whole")
    _, changes = killing.forked(lambda: go_on(folder / "whole"))
    runs = []
    for moment in range(1, changes + 1):
        atlas = folder / str(moment)
        prepare(atlas)
        status, _ = killing.forked(lambda atlas=atlas: go_on(atlas), moment)  # type: ignore[misc]
        killed = seen(atlas)
        go_on(atlas)
        runs.append({"status": status, "killed": killed, "after": seen(atlas)})
        shutil.rmtree(atlas)
    return runs


def test_a_run_killed_before_any_change_leaves_whole_pictures(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        stdout=subprocess.PIPE,
        check=True,
        timeout=120,
    )
    runs = json.loads(run.stdout)
    assert len(runs) > 12
    states = set()
    for each in runs:
        assert each["status"] == 9
        assert each["killed"]["whole"]
        states.add(tuple(sorted(each["killed"]["steps"].items())))
        assert each["after"]["steps"] == {"1": 1, "2": 9, "4": 9}
        assert each["after"]["whole"]
        assert each["after"]["files"] == [
            ".lock", "3-1-0.webp", "3-1-1.webp", "3-2-0.png", "3-2-1.png", "3-4-0.png",
            "3-4-1.png", TABLE,
        ]  # fmt: skip
    assert states == {
        (("1", 1), ("2", 1)),
        (("1", 1),),
        (("1", 1), ("2", 9), ("4", 9)),
    }


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    with FeatureStore(tmp_path) as store:
        store.put(pictures([1]))
    folder = tmp_path / FOLDER
    (folder / f"{TEMPORARY}1-abc").write_bytes(b"half")
    (folder / "3-7-0.webp").write_bytes(b"unnamed")
    (folder / "notes.txt").write_bytes(b"the user's own")
    FeatureStore(tmp_path).close()
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock", "3-1-0.webp", "3-1-1.webp", TABLE, "notes.txt"
    ]  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(kill_everywhere(Path(sys.argv[1]))))
