from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from atlas import filling, made

from summit_graph.atlas.files import writing
from summit_graph.atlas.store import Store
from summit_graph.errors import AtlasError

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}


def own_mounts() -> bool:
    """Whether this process may mount in a namespace of its own."""
    if not shutil.which("unshare"):
        return False
    probe = "mount -t tmpfs -o size=4k tmpfs /mnt"
    tried = subprocess.run(["unshare", "-m", "sh", "-c", probe], capture_output=True, check=False)
    return tried.returncode == 0


needs_mounts = pytest.mark.skipif(not own_mounts(), reason="mounting needs the user root")


def mounted(what: str, *arguments: str) -> dict[str, Any]:
    run = subprocess.run(
        ["unshare", "-m", sys.executable, filling.__file__, what, *arguments],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        check=True,
        timeout=300,
    )
    report: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return report


@needs_mounts
def test_a_full_disk_says_so_and_the_run_goes_on_with_more_space(tmp_path: Path) -> None:
    made.atlas(tmp_path / "whole", made.images(12))
    report = mounted("full", str(tmp_path), "12")
    *failed, last = report["seen"]
    assert len(failed) >= 10
    for step in failed:
        assert "Free some space there and run the same command again" in step["said"], step
        assert not step["left"], step
    assert last["said"] is None
    assert report["equal"]


@needs_mounts
def test_a_read_only_folder_can_be_read_and_says_so_when_written(tmp_path: Path) -> None:
    made.atlas(tmp_path / "whole", made.images(12))
    report = mounted("read-only", str(tmp_path))
    assert report["neurons"] == 8
    for said in (report["open"], report["create"]):
        assert "Read-only file system. Choose a folder that can be written to" in said


def test_a_file_that_may_not_grow_says_so_and_damages_nothing(tmp_path: Path) -> None:
    """The limit of a file's size fails like a full disk, and any user can set it."""
    path = made.atlas(tmp_path / "atlas", made.images(5))
    before = made.tables(path)
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from atlas import killing\n"
        "from summit_graph.errors import AtlasError\n"
        "limit = int(sys.argv[2])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))\n"
        "try:\n"
        "    killing.ingest(Path(sys.argv[1]), 20)\n"
        "except AtlasError as error:\n"
        "    print(error)\n"
    )
    for limit in ("400", "1500", "2500"):
        run = subprocess.run(
            [sys.executable, "-c", script, str(path), limit],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "File too large. Free some space" in run.stdout, (limit, run)
        assert made.tables(path) == before
        assert not [file for file in path.rglob("*") if ".tmp-" in file.name]
    filling.killing.ingest(path, 20)
    made.atlas(tmp_path / "whole", made.images(20))
    assert made.tables(path) == made.tables(tmp_path / "whole")


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EDQUOT, "Free some space"),
        (errno.EROFS, "Choose a folder that can be written to"),
        (errno.EACCES, "Choose a folder that can be written to"),
        (errno.EIO, "What was finished is kept"),
    ],
)
def test_what_the_system_refuses_is_explained(number: int, advice: str) -> None:
    message = rf"could not write to /x: .*{os.strerror(number)}.*{advice}"
    with pytest.raises(AtlasError, match=message), writing(Path("/x")):
        raise OSError(number, os.strerror(number), "/x/y")
    with pytest.raises(AtlasError, match=r"^mine$"), writing(Path("/x")):
        raise AtlasError("mine")


def test_an_atlas_where_a_file_is_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(AtlasError, match=r"could not write to .*file"):
        Store.create(tmp_path / "file", made.description())
    with pytest.raises(AtlasError, match=r"could not write to .*file/atlas"):
        Store.create(tmp_path / "file" / "atlas", made.description())
