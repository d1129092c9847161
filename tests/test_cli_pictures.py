"""The commands for pictures, called as a person calls them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from summit_graph import cli
from summit_graph.atlas import features as features_on_disk
from summit_graph.atlas.features import read_features

RUN = [sys.executable, "-c", "from summit_graph.cli import main; main()"]
QUICK = ("--steps", 4, "--diverse", 1)


def started(*arguments: object) -> subprocess.Popen[str]:
    """The command line in a process of its own, which an interruption reaches."""
    return subprocess.Popen(
        [*RUN, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # A shell starts what it sends to the background with SIGINT ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def call(*arguments: object, code: int = 0) -> Result:
    """Runs the command line in this process."""
    result = CliRunner().invoke(cli.app, [str(part) for part in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def atlas(demo_atlas: Path, tmp_path: Path) -> Path:
    """A copy of the demo's atlas."""
    copy = tmp_path / "digits.atlas"
    shutil.copytree(demo_atlas, copy)
    return copy


def data(folder: Path, key: str) -> Any:
    """What a data file of a page holds."""
    text = (folder / "data" / f"{key}.js").read_text(encoding="utf-8")
    return json.loads(text[text.index(", ") + 1 : text.rindex(")")])


# Feature visualisations


def test_features_are_made_once(atlas: Path) -> None:
    first = call("features", atlas, "--neuron", "conv1/5", "--neuron", "conv4/2?", *QUICK)
    head = " ".join(first.stdout.split())
    assert re.search(r"11 neurons of \S+, 22 pictures: 11 made in", head), head
    assert f"summit-graph view {atlas} --open" in head
    again = call("features", atlas, "--neuron", "conv1/5,conv4/2?", *QUICK, "--json")
    report = json.loads(again.stdout)
    assert (report["neurons"], report["made"], report["kept"]) == (11, 0, 11)
    assert len(read_features(atlas)) == 11


def test_features_as_png_of_a_size(atlas: Path) -> None:
    call("features", atlas, "--neuron", "conv1/5", *QUICK, "--format", "png", "--size", 16)
    (found,) = read_features(atlas).values()
    assert [feature.file[-4:] for feature in found] == [".png", ".png"]
    for feature in found:
        with Image.open(atlas / features_on_disk.FOLDER / feature.file) as picture:
            assert picture.format == "PNG"
            assert picture.size == (16, 16)


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (["--neuron", "conv9/*"], 2, "conv9"),
        (["--neuron", "conv1/5", "--all"], 2, ""),
        (["--size", "1"], 2, "size"),
        (["--device", "abacus"], 2, "abacus"),
        (["--model", "torchvision:alexnet"], 1, ""),
    ],
)
def test_what_features_refuses(options: list[str], code: int, told: str, atlas: Path) -> None:
    result = call("features", atlas, *QUICK, *options, code=code)
    assert result.stderr.splitlines()[-1].startswith("Error: ") or "Error" in result.stderr
    assert told in result.stderr
    assert not read_features(atlas)


def test_an_interruption_keeps_what_is_finished(atlas: Path) -> None:
    arguments = ("features", atlas, "--steps", 64, "--diverse", 1, "--batch-size", 1)
    with started(*arguments) as making:
        deadline = time.monotonic() + 90
        while not read_features(atlas) and time.monotonic() < deadline:
            time.sleep(0.02)
        making.send_signal(signal.SIGINT)
        said, told = making.communicate(timeout=60)
    assert (making.returncode, said) == (130, "")
    assert told.endswith(
        "Error: stopped. Finished pictures are kept: the same command goes on from there.\n"
    )
    kept = len(read_features(atlas))
    assert 0 < kept < 48
    report = json.loads(call(*arguments, "--json").stdout)
    assert (report["kept"], report["made"]) == (kept, 48 - kept)


# Pages


def test_pages_lie_beside_the_atlas(atlas: Path) -> None:
    shown = call("view", atlas)
    index = atlas.with_name("digits.pages") / "index.html"
    assert str(index) in "".join(shown.stdout.split())
    assert index.is_file()
    overview = data(index.parent, "overview")
    assert overview["classes"]["name"][3] == "three"
    assert "summit-graph features" in shown.stdout


def test_pages_elsewhere_without_examples(atlas: Path, tmp_path: Path) -> None:
    report = json.loads(
        call("view", "--atlas", atlas, "--out", tmp_path / "site", "--no-examples", "--json").stdout
    )
    assert Path(report["index"]) == tmp_path / "site" / "index.html"
    assert report["examples"] is False
    assert data(tmp_path / "site", "overview")["hasExamples"] is False


def test_what_is_in_the_way_stays(atlas: Path, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "thesis.txt").write_text("mine")
    told = call("view", atlas, "--out", tmp_path / "site", code=2).stderr
    assert "It was left as it is" in told
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["thesis.txt"]


def test_pages_are_served_until_an_interruption(atlas: Path) -> None:
    with started("view", atlas, "--serve") as server:
        assert server.stdout is not None
        said = ""
        while not (found := re.search(r"http://127\.0\.0\.1:\d+/", said)):
            line = server.stdout.readline()
            assert line, said
            said += line
        with urlopen(found[0], timeout=10) as answer:
            assert b"<title>" in answer.read()
        server.send_signal(signal.SIGINT)
        _, told = server.communicate(timeout=20)
    assert server.returncode == 0
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("compare", "state"),
    [((), "class=3"), (("eight",), "class=3&with=8"), (("seven", "8"), "class=3&with=7,8")],
)
def test_pages_are_opened_at_the_class(
    compare: tuple[str, ...], state: str, atlas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or True)
    others = [part for other in compare for part in ("--compare", other)]
    call("view", atlas, "--open", "--class", "three", *others)
    (url,) = opened
    assert url.startswith("file://")
    assert url.endswith(f"digits.pages/index.html#{state}")


# One class as a file


def test_a_class_as_svg_png_and_pdf(atlas: Path, tmp_path: Path) -> None:
    files = {kind: tmp_path / f"three.{kind}" for kind in ("svg", "png", "pdf")}
    options = [part for kind, file in files.items() for part in (f"--{kind}", file)]
    report = json.loads(call("view", atlas, "--class", "three", *options, "--json").stdout)
    assert report == {"files": [str(file) for file in files.values()]}
    assert "three" in files["svg"].read_text(encoding="utf-8")
    assert files["pdf"].read_bytes().startswith(b"%PDF")
    with Image.open(files["png"]) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 400
    assert not atlas.with_name("digits.pages").exists()


def test_weak_edges_are_left_out_and_classes_compared(atlas: Path, tmp_path: Path) -> None:
    sizes = []
    two = ["--compare", "eight"]
    for number, options in enumerate(([], ["--least", "0.9"], two, [*two, "--compare", "five"])):
        file = tmp_path / f"{number}.svg"
        call("view", atlas, "--class", "three", "--svg", file, *options)
        sizes.append(file.read_text(encoding="utf-8").count("<path"))
    assert sizes[1] < sizes[0] < sizes[2] < sizes[3]
    said = (tmp_path / "3.svg").read_text(encoding="utf-8")
    assert "three, eight and five" in said
    assert "only in five" in said


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--svg", "three.svg"], "add --class CLASS"),
        (["--compare", "eight"], "add --class CLASS"),
        (["--class", "three", "--compare", "8", "--compare", "3"], "compared with itself"),
        (
            ["--class", "3", *(part for other in "1245" for part in ("--compare", other))],
            "5 classes are too many for one picture",
        ),
        (["--serve", "--json"], "--serve"),
        (["--class", "three", "--svg", "a.svg", "--least", "2"], "--least"),
        (["--port", "70000", "--serve"], "--port"),
    ],
)
def test_what_view_refuses(options: list[str], told: str, atlas: Path) -> None:
    assert told in call("view", atlas, *options, code=2).stderr
    assert not atlas.with_name("digits.pages").exists()


def test_a_file_that_cannot_be_written_is_named(atlas: Path, tmp_path: Path) -> None:
    file = tmp_path / "nowhere" / "three.svg"
    told = call("view", atlas, "--class", "three", "--svg", file, code=1).stderr
    assert str(file) in told
