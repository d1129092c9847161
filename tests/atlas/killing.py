"""Counts made atlases in processes that are killed just before a change to the file system.

Run as a script it forks a child for each moment and prints what it saw as JSON; it forks before any
thread is started. The child is killed by SIGKILL, as by `kill -9`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from atlas import made, published

from summit_graph.atlas.generation import Generation, exists
from summit_graph.atlas.merging import merge_atlases
from summit_graph.atlas.store import Store
from summit_graph.atlas.summit import import_summit
from summit_graph.atlas.tables import build_tables, compact

CHANGES = ("fsync", "rename", "replace", "link", "symlink", "mkdir", "unlink", "rmdir")
IMAGES = 9
MORE = 14


def ingest(path: Path, images: int, folded: bool = False) -> None:
    """Counts, ranks and draws what is not there yet, as a resumed run does."""
    with Store.open_or_create(path, made.description()) as store:
        store.plan(made.images(images))
        made.count(store)
        if folded:
            compact(store, threads=1)
        if not store.up_to_date():
            build_tables(store, threads=1, fields=made.FIELDS)
        if "ranking" not in store.header:
            made.rank(store)
        made.make_thumbnails(store)


def grow(folder: Path) -> None:
    """An atlas that is counted, added to, and folded."""
    ingest(folder / "atlas", IMAGES)
    ingest(folder / "atlas", MORE)
    ingest(folder / "atlas", MORE, folded=True)


def merge(folder: Path) -> None:
    """Two atlases, and one made of both."""
    merge_atlases([folder / "first", folder / "second"], folder / "atlas", threads=1).close()


def go_on(folder: Path) -> None:
    """What a user does after a killed `grow`."""
    ingest(folder / "atlas", MORE)


def merge_again(folder: Path) -> None:
    """What a user does after a killed `merge`."""
    if not (folder / "atlas").exists():
        merge(folder)


def prepare_merge(folder: Path) -> None:
    images = made.images(MORE)
    for name, some in (("first", images[::2]), ("second", images[1::2])):
        made.atlas(folder / name, some, ranked=False)
        with Store.open_for_writing(folder / name) as store:
            made.make_thumbnails(store)


def import_graphs(folder: Path) -> None:
    """An atlas of published graphs."""
    import_summit(folder / "ag", folder / "atlas", classes_file=folder / "classes.csv")


def prepare_import(folder: Path) -> None:
    published.write(folder / "ag", {index: published.content(index) for index in (3, 270)})
    published.class_file(folder / "classes.csv")


def forked(action: Callable[[], Any], kill_at: int | None = None) -> tuple[int, int]:
    """Runs an action in a child: its exit status and how many changes it made."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        seen = 0

        def counted(change: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal seen
                seen += 1
                if seen == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return change(*arguments, **options)

            return call

        for name in CHANGES:
            setattr(os, name, counted(getattr(os, name)))
        status = 1
        try:
            action()
            status = 0
        finally:
            os.write(writing, str(seen).encode())
            os._exit(status)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    seen_text = os.read(reading, 32)
    os.close(reading)
    return status, int(seen_text or 0)


def digest(path: Path) -> str | None:
    """A hash over all tables of an atlas, None before it has any."""
    if not exists(path):
        return None
    generation = Generation.current(path)
    if not (generation.complete or generation.partial):
        return None
    text = hashlib.sha256()
    for name in generation.tables():
        text.update(repr((name, made.rows(generation.table(name)))).encode())
    return text.hexdigest()


def pictures(path: Path) -> dict[str, str]:
    """The thumbnails of an atlas: path -> hash of the file."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in path.glob("thumbnails/*/*")
    }


def in_child(action: Callable[[], Any], answer: Path) -> Any:
    """Runs an action in a child and returns what it returns: the parent stays without threads."""

    def write() -> None:
        answer.write_text(json.dumps(action()))

    status, _ = forked(write)
    assert status == 0, status
    return json.loads(answer.read_text())


def main(scenario: str, folder: Path, moments: int, seed: int) -> dict[str, Any]:
    """Kills at `moments` random moments and goes on; see the keys of what it returns."""
    action, again, setup = {
        "grow": (grow, go_on, lambda _: None),
        "merge": (merge, merge_again, prepare_merge),
        "import": (import_graphs, import_graphs, prepare_import),
    }[scenario]
    answer = folder / "answer.json"

    def fresh(name: str) -> Path:
        place = folder / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        assert forked(lambda: setup(place))[0] == 0
        return place

    whole = fresh("whole")
    status, changes = forked(lambda: action(whole))
    assert status == 0
    states = [None]
    if scenario == "grow":
        steps = fresh("steps")
        for images in (IMAGES, MORE):
            atlas = steps / "atlas"

            def counted(images: int = images, atlas: Path = atlas) -> str | None:
                with Store.open_or_create(atlas, made.description()) as store:
                    store.plan(made.images(images))
                    made.count(store)
                    build_tables(store, threads=1, fields=made.FIELDS)
                return digest(atlas)

            def ranked(images: int = images, atlas: Path = atlas) -> str | None:
                ingest(atlas, images)
                return digest(atlas)

            states += [in_child(counted, answer), in_child(ranked, answer)]
    expected = in_child(lambda: digest(whole / "atlas"), answer)
    states.append(expected)
    report: dict[str, Any] = {"changes": changes, "runs": [], "states": len(set(states))}
    order = list(range(1, changes + 1))
    random.Random(seed).shuffle(order)
    for moment in sorted(order[:moments]):
        place = fresh("killed")
        status, _ = forked(lambda place=place: action(place), moment)
        seen = in_child(lambda place=place: digest(place / "atlas"), answer)
        shards = place / "atlas" / "shards"
        before = {
            str(file): file.stat().st_mtime_ns
            for file in (shards.rglob("*.parquet") if shards.is_dir() else ())
            if ".tmp-" not in str(file)
        }
        resumed, _ = forked(lambda place=place: again(place))
        after = {name: Path(name).stat().st_mtime_ns for name in before if Path(name).exists()}
        report["runs"].append(
            {
                "moment": moment,
                "killed": os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL,
                "state known": seen in states,
                "resumed": resumed == 0,
                "equal": in_child(lambda place=place: digest(place / "atlas"), answer) == expected,
                "pictures equal": pictures(place / "atlas") == pictures(whole / "atlas"),
                "kept": all(before[name] == time for name, time in after.items()),
                "left": sorted(
                    file.name
                    for file in place.rglob("*")
                    if ".tmp-" in file.name and not file.name.startswith(".lock")
                ),
            }
        )
    return report


if __name__ == "__main__":
    found = main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    print(json.dumps(found))
