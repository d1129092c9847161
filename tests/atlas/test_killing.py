from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from atlas import killing, made

from summit_graph.atlas.generation import exists

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}


def killed_at(scenario: str, folder: Path, moments: int, seed: int) -> dict[str, Any]:
    run = subprocess.run(
        [sys.executable, killing.__file__, scenario, str(folder), str(moments), str(seed)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        check=True,
        timeout=600,
    )
    report: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return report


def assert_survived(report: dict[str, Any], moments: int) -> None:
    assert len(report["runs"]) == min(moments, report["changes"])
    for run in report["runs"]:
        assert run["killed"], run
        assert run["state known"], run
        assert run["resumed"], run
        assert run["equal"], run
        assert run["pictures equal"], run
        assert run["kept"], run
        assert not run["left"], run


@pytest.mark.parametrize(("scenario", "changes"), [("grow", 60), ("merge", 60), ("import", 40)])
def test_a_run_killed_between_two_changes_goes_on(
    scenario: str, changes: int, tmp_path: Path
) -> None:
    report = killed_at(scenario, tmp_path, moments=4, seed=3)
    assert report["changes"] > changes
    assert_survived(report, 4)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["grow", "merge", "import"])
def test_a_run_killed_before_many_changes_goes_on(scenario: str, tmp_path: Path) -> None:
    report = killed_at(scenario, tmp_path, moments=40, seed=4)
    assert_survived(report, 40)


def test_a_run_killed_from_outside_at_any_time_goes_on(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "import sys; from pathlib import Path; from atlas import killing\n"
        "print('started', flush=True)\n"
        "killing.ingest(Path(sys.argv[1]), 60)",
        str(tmp_path / "atlas"),
    ]
    draw = random.Random(5)
    for _ in range(3):
        run = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE)
        assert run.stdout is not None
        assert run.stdout.readline() == b"started\n"
        time.sleep(draw.random() * 0.3)
        run.send_signal(signal.SIGKILL)
        run.wait()
        run.stdout.close()
    killing.ingest(tmp_path / "atlas", 60)
    made.atlas(tmp_path / "whole", made.images(60))
    assert made.tables(tmp_path / "atlas") == made.tables(tmp_path / "whole")
    assert exists(tmp_path / "atlas")
