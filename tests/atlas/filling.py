"""Counts a made atlas on a disk that is full or read-only; run as a script as the user root, in a
mount namespace of its own. Prints what it saw as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from atlas import killing, made

from summit_graph.atlas.atlas import Atlas
from summit_graph.atlas.store import Store
from summit_graph.errors import AtlasError


def message(action: Any, *arguments: Any) -> str | None:
    try:
        action(*arguments)
    except AtlasError as error:
        return str(error)
    return None


def full(folder: Path, images: int) -> dict[str, Any]:
    """Lets the disk grow step by step; at each step the run fails for want of space or ends."""
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", os.fspath(disk)], check=True)
    seen: list[Any] = []
    for size in range(24, 1024, 8):
        subprocess.run(["mount", "-o", f"remount,size={size}k", os.fspath(disk)], check=True)
        said = message(killing.ingest, disk / "atlas", images)
        left = [str(file) for file in disk.rglob("*") if ".tmp-" in file.name]
        seen.append({"size": size, "said": said, "left": left})
        if said is None:
            break
    return {
        "seen": seen,
        "equal": made.tables(disk / "atlas") == made.tables(folder / "whole"),
    }


def read_only(folder: Path) -> dict[str, Any]:
    """The same atlas, mounted so that nobody can write it."""
    place = folder / "whole"
    subprocess.run(["mount", "--bind", os.fspath(place), os.fspath(place)], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", os.fspath(place)], check=True)
    with Atlas.open(place) as atlas:
        neurons = len(atlas.attribution_graph(0).neurons)
    return {
        "neurons": neurons,
        "open": message(Store.open_for_writing, place),
        "create": message(Store.create, place / "inner", made.description()),
    }


if __name__ == "__main__":
    where = Path(sys.argv[2])
    found = full(where, int(sys.argv[3])) if sys.argv[1] == "full" else read_only(where)
    print(json.dumps(found))
