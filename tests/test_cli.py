from __future__ import annotations

import ast
import csv
import inspect
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import networkx
import pytest
import typer.main
from atlas import published
from PIL import Image
from typer.testing import CliRunner

import summit_graph
from summit_graph import Ranking, cli, options, pipeline
from summit_graph.atlas.atlas import Atlas
from summit_graph.atlas.export import FORMATS
from summit_graph.errors import AtlasError

ROOT = Path(__file__).parents[1]
MODEL = ["--model", cli.DEMO_MODEL]
RUN = [sys.executable, "-c", "from summit_graph.cli import main; main()"]


def call(*arguments: Any, code: int = 0, folder: Path | None = None) -> Any:
    """Runs the command line in this process; returns what it printed (`stdout`, `stderr`)."""
    before = Path.cwd()
    os.chdir(folder or before)
    try:
        result = CliRunner().invoke(cli.app, [str(part) for part in arguments])
    finally:
        os.chdir(before)
    assert result.exit_code == code, result.output
    return result


def process(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Runs the command line in a process of its own, from the working tree."""
    options.setdefault("env", {**os.environ, "PYTHONPATH": str(ROOT)})
    return subprocess.run([*RUN, *map(str, arguments)], capture_output=True, timeout=120, **options)


@pytest.fixture(scope="session")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ranked atlas of the demo's images; do not change it."""
    path = tmp_path_factory.mktemp("cli") / "digits.atlas"
    call("ingest", "digits", *MODEL, "--atlas", path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve digits as files in class folders; three more files are broken, and one is a text."""
    folder = tmp_path / "photos"
    for name in ("one", "two"):
        (folder / name).mkdir(parents=True)
        for number in range(6):
            shade = 40 * number + (10 if name == "one" else 0)
            Image.new("L", (8, 8), shade).save(folder / name / f"{number}.png")
    (folder / "one" / "broken.png").write_bytes(b"\x89PNG and no more")
    (folder / "one" / "empty.png").write_bytes(b"")
    whole = (folder / "two" / "3.png").read_bytes()
    (folder / "two" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "two" / "notes.txt").write_text("no image")
    return folder


# Help


def commands() -> dict[str, Any]:
    """All commands by name; those of a group as `db up`."""
    found: dict[str, Any] = {}
    for name, command in typer.main.get_command(cli.app).commands.items():  # type: ignore[attr-defined]
        group = getattr(command, "commands", None)
        if group is None:
            found[name] = command
        else:
            found |= {f"{name} {inner}": entry for inner, entry in group.items()}
    return found


def test_the_commands_are_these() -> None:
    assert list(commands()) == [
        "demo", "ingest", "import-summit", "layers", "rank", "merge", "info", "show", "neuron",
        "export", "features", "view", "load", "unload", "query",
        "db up", "db status", "db down", "db logs", "db remove",
    ]  # fmt: skip


def test_every_command_and_option_has_help() -> None:
    for name, command in commands().items():
        assert command.help, name
        for param in command.params:
            assert param.help, f"{name} {param.name}"


def test_every_command_and_option_is_in_the_reference() -> None:
    reference = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    sections = {
        part.partition("\n")[0]: part for part in re.split("^## ", reference, flags=re.MULTILINE)
    }
    for name, command in commands().items():
        assert f"summit-graph {name}" in sections[name]
        for param in command.params:
            for option in (part for part in param.opts if part.startswith("-")):
                assert f"`{option}" in sections[name], f"{name} {option} is not described"
    for option in ("--version", "--debug", "--install-completion", "--show-completion", "--help"):
        assert f"`{option}`" in reference


@pytest.mark.parametrize("name", [None, *list(commands())])
def test_help_fits_80_columns_and_is_plain(name: str | None) -> None:
    said = call(*(name.split() if name else []), "--help").stdout
    assert said.startswith("Usage: ")
    assert max(map(len, said.splitlines())) <= 80
    assert said.isascii()
    assert "..." not in said.replace("[ARGS]...", "").replace("ATLAS...", "")


def test_long_helps_are_in_groups() -> None:
    said = call("ingest", "--help").stdout
    heads = re.findall(r"^(\w+):$", said, re.MULTILINE)
    assert heads == ["Arguments", "Options", "Model", "Counting", "Ranking", "Running", "Neo4j"]
    assert said.index("--mass") > said.index("\nRanking:")


def test_the_version() -> None:
    assert call("--version").stdout == f"summit-graph {summit_graph.__version__}\n"


def test_help_is_there_at_once() -> None:
    times = []
    for _ in range(6):
        started = time.perf_counter()
        assert process("--help").returncode == 0
        times.append(time.perf_counter() - started)
    assert min(times) < 0.3


def test_nothing_heavy_is_imported_for_help() -> None:
    code = (
        "import sys, summit_graph.cli, typer.testing as t;"
        "t.CliRunner().invoke(summit_graph.cli.app, ['ingest', '--help']);"
        "print(sorted({'torch', 'duckdb', 'pyarrow', 'numpy', 'PIL', 'rich', 'networkx'} "
        "& set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.stdout == "[]\n"


def test_the_shell_can_complete() -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "_SUMMIT_GRAPH_COMPLETE": "complete_bash"}
    done = process(env={**env, "COMP_WORDS": "summit-graph me", "COMP_CWORD": "1"})
    assert done.stdout.split() == [b"merge"]
    words = "summit-graph export 3 --format g"
    done = process(env={**env, "COMP_WORDS": words, "COMP_CWORD": "4"})
    assert done.stdout.split() == [b"graphml", b"gexf"]


def test_defaults_are_those_of_the_library() -> None:
    library = inspect.signature(pipeline.ingest).parameters
    renamed = {"compact": "compact_shards", "as_json": None}
    ranking = {field.name: field.default for field in fields(Ranking)}
    for command in (cli.ingest, cli.rank, cli.merge):
        for name, parameter in inspect.signature(command).parameters.items():
            other = renamed.get(name, name)
            if parameter.default in (inspect.Parameter.empty, None) or other is None:
                continue
            if name in ranking:
                assert (parameter.default or ()) == (ranking[name] or ()), name
            elif other in library:
                assert parameter.default == library[other].default, name


def test_every_parameter_of_the_library_is_an_option() -> None:
    offered = {"compact_shards" if name == "compact" else name
               for name in inspect.signature(cli.ingest).parameters}  # fmt: skip
    assert set(inspect.signature(pipeline.ingest).parameters) - offered == {"ranking", "progress"}
    ranking = {field.name for field in fields(Ranking)}
    assert ranking <= offered
    assert ranking <= set(inspect.signature(cli.rank).parameters)


def test_formats_are_those_of_the_library() -> None:
    assert list(options.Format.__members__) == list(FORMATS)


# What options mean


@pytest.mark.parametrize(
    ("text", "size"),
    [("224", 224), ("240x320", (240, 320)), ("240X320", (240, 320)), (None, None)],
)
def test_image_sizes(text: str | None, size: object) -> None:
    assert options.image_size(text) == size


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 * 10**9), ("512 MiB", 2**29), ("1.5gib", 3 * 2**29), ("1TB", 10**12), (None, None)],
)
def test_memory_sizes(text: str | None, size: int | None) -> None:
    assert options.size_in_bytes(text) == size


def test_layers_are_separated_by_commas_and_options() -> None:
    assert options.patterns(["a,b", " c* ,"]) == ["a", "b", "c*"]
    assert options.patterns([]) is None


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--mass", "0", "'--mass': 0 is not in the range above 0 and up to 1"),
        ("--mass", "1.5", "'--mass': 1.5 is not in the range above 0 and up to 1"),
        ("--mass", "nan", "'--mass': nan is not in the range above 0 and up to 1"),
        ("--activation-mass", "-1", "-1 is not in the range above 0 and up to 1"),
        ("--damping", "1", "'--damping': 1 is not in the range from 0 to below 1"),
        ("--damping", "lots", "'--damping'"),
        ("--top-sources", "0", "(greater than or equal to |>=)1"),
        ("--batch-size", "0", "(greater than or equal to |>=)1"),
        ("--shard-size", "0", "(greater than or equal to |>=)1"),
        ("--workers", "0", "(greater than or equal to |>=)1"),
        ("--examples", "-1", "(greater than or equal to |>=)0"),
        ("--sources", "-1", "(greater than or equal to |>=)0"),
        ("--image-size", "0", "--image-size is '0'; it has to be a number of pixels"),
        ("--image-size", "1x2x3", "--image-size is '1x2x3'"),
        ("--mean", "a,b", "--mean is 'a,b'; it has to be a number for each channel"),
        ("--std", "", "--std is ''"),
        ("--memory", "4", "--memory is '4'; it has to be a number with its unit"),
        ("--memory", "GB", "--memory is 'GB'"),
        ("--memory", "1KB", "--memory is '1KB'; it has to be at least 64MiB"),
    ],
)
def test_a_value_that_cannot_be_is_wrong_use(
    option: str, value: str, told: str, tmp_path: Path
) -> None:
    result = call("ingest", "digits", *MODEL, "-o", tmp_path / "a", option, value, code=2)
    if not told.startswith("("):
        told = re.escape(told)
    assert re.search(told, " ".join(result.stderr.split()))
    assert option in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["shwo"], "Did you mean 'show'?"),
        (["show"], "Missing argument 'CLASS'"),
        (["ingest", "digits"], "--model"),
        (["export", "three", "--format", "pdf"], "'graphml'"),
        (["info", "--nonsense"], "No such option"),
    ],
)
def test_wrong_use_is_told(arguments: list[str], told: str) -> None:
    result = call(*arguments, code=2)
    assert told in result.stderr
    assert result.stdout == ""


# Making an atlas


def test_ingest_says_what_it_did_and_leaves_a_line_a_stage(photos: Path, tmp_path: Path) -> None:
    place = tmp_path / "my.atlas"
    result = call("ingest", photos, *MODEL, "-o", place, "--shard-size", 4)
    said = " ".join(result.stdout.split())
    assert f"{place}:" in "".join(result.stdout.split())
    assert "15 images (15 new), 12 of them in 2 classes." in said
    assert "1 file among them: no images, passed over." in said
    assert "3 images left out:" in said
    for path in ("one/broken.png", "one/empty.png", "two/cut.png"):
        assert path in said
    assert f"summit-graph show CLASS --atlas {place}" in said
    stages = re.findall(r"^([a-z A-Z]+?)  +[\d.]+ s", result.stderr, re.MULTILINE)
    assert stages[:5] == [
        "loading PyTorch",
        "tracing the model",
        "listing the images",
        "reading what is new",
        "counting",
    ]
    assert "3 left out" in result.stderr
    assert "\x1b" not in result.output


def test_ingest_warns_where_the_model_guesses(photos: Path, tmp_path: Path) -> None:
    result = call("ingest", photos, *MODEL, "-o", tmp_path / "a", "--json")
    document = json.loads(result.stdout)
    assert document["top1"] < 0.6
    assert "not above chance" in result.stderr
    assert any("not above chance" in warning for warning in document["warnings"])


@pytest.mark.slow
def test_ingest_again_counts_what_is_new(photos: Path, tmp_path: Path) -> None:
    place = tmp_path / "my.atlas"
    first = json.loads(call("ingest", photos, *MODEL, "-o", place, "--json").stdout)
    assert (first["images"], first["new"], len(first["left_out"])) == (15, 15, 3)
    again = call("ingest", photos, *MODEL, "-o", place)
    assert "15 images (none new)" in " ".join(again.stdout.split())
    Image.new("L", (8, 8), 255).save(photos / "two" / "later.png")
    more = json.loads(call("ingest", photos, *MODEL, "-o", place, "--json").stdout)
    assert (more["images"], more["new"]) == (16, 1)
    assert more["atlas"] == str(place)


def test_strict_stops_at_a_broken_image(photos: Path, tmp_path: Path) -> None:
    result = call("ingest", photos, *MODEL, "-o", tmp_path / "a", "--strict", code=1)
    assert "Error: one/broken.png: not an image." in result.stderr
    assert "--strict" in result.stderr
    assert result.stdout == ""


def test_ingest_passes_its_options_on(photos: Path, tmp_path: Path) -> None:
    place = tmp_path / "my.atlas"
    call(
        "ingest", photos, *MODEL, "-o", place, "--layers", "conv1,conv2", "--layers", "conv4",
        "--image-size", 8, "--mean", "0.1", "--std", "0.2", "--group-by", "prediction",
        "--activation-mass", 0.5, "--top-sources", 2, "--examples", 3, "--per-class-examples",
        "--batch-size", 4, "--shard-size", 6, "--device", "cpu", "--memory", "1GB", "--name",
        "my-key", "--compact", "--workers", 1, "--mass", 0.2, "--damping", 0.5, "--sources", 1,
        "--exclude", "conv1/0", "--exclude", "conv2/*",
    )  # fmt: skip
    with Atlas.open(place) as atlas:
        info = atlas.info()
        identity = info["identity"]
        assert info["key"] == "my-key"
        assert [layer.name for layer in atlas.layers] == ["conv1", "conv2", "conv4"]
        assert identity["grouping"] == "prediction"
        assert identity["preprocessing"]["mean"] == [0.1]
        assert identity["preprocessing"]["std"] == [0.2]
        wanted = {"mass": 0.5, "k": 2, "examples": 3, "per_class_examples": True, "batch_size": 4,
                  "shard_size": 6}  # fmt: skip
        assert wanted.items() <= identity["parameters"].items()
        ranking = {"mass": 0.2, "damping": 0.5, "sources": 1, "exclude": ["conv1/0", "conv2/*"]}
        assert ranking.items() <= info["ranking"].items()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["nowhere", *MODEL], 2, "No images at 'nowhere'"),
        (["digits", "--model", "torchvision:resnet1"], 2, "resnet18"),
        (["digits", "--model", "nothing"], 2, "names no model"),
        (["digits", *MODEL, "--layers", "nix"], 2, "no layer matches 'nix'"),
        (["digits", *MODEL, "--device", "abacus"], 2, "auto, cpu, cuda or mps"),
        (["digits", *MODEL, "--exclude", "conv9/1"], 2, "conv9/1"),
    ],
)
def test_what_ingest_refuses(arguments: list[str], code: int, told: str, tmp_path: Path) -> None:
    result = call("ingest", *arguments, "-o", tmp_path / "a", code=code)
    assert told in result.stderr
    assert result.stderr.count("Error:") == 1
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_an_interruption_keeps_what_is_finished(tmp_path: Path) -> None:
    place = tmp_path / "my.atlas"
    arguments = ["ingest", "digits", *MODEL, "-o", str(place)]
    arguments += ["--shard-size", "8", "--batch-size", "1", "--workers", "1"]
    running = subprocess.Popen(
        [*RUN, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        # A shell starts what it sends to the background with SIGINT ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 90
    while not list(place.glob("shards/[0-9]*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    said, told = running.communicate(timeout=60)
    assert running.returncode == 130
    assert said == ""
    assert told.endswith(
        "Error: stopped. Finished shards are kept: the same command goes on from there.\n"
    )
    assert re.search(r"^counting .* stopped after \d+ of 899 images", told, re.MULTILINE)
    assert "Traceback" not in told
    document = json.loads(call(*arguments, "--json").stdout)
    assert document["images"] == 899
    assert 0 < document["new"] < 899


def test_rank_changes_the_graphs_and_needs_no_image(atlas: Path, tmp_path: Path) -> None:
    place = tmp_path / "again.atlas"
    shutil.copytree(atlas, place, symlinks=True)
    few = json.loads(call("rank", place, "--json").stdout)
    many = json.loads(call("rank", place, "--mass", 0.9, "--json").stdout)
    assert many["neurons"][1] > few["neurons"][1]
    said = call("rank", "--atlas", place, "--exclude", "conv2/*").stdout
    assert "10 attribution graphs of" in said
    graph = json.loads(call("show", "three", "--atlas", place, "--json").stdout)
    assert not [neuron for neuron in graph["neurons"] if neuron["layer"] == "conv2"]
    assert "conv7" in call("rank", place, "--exclude", "conv7/1", code=2).stderr


@pytest.mark.slow
def test_merge_adds_atlases(tmp_path: Path) -> None:
    parts = []
    for number, name in enumerate(("one", "two")):
        folder = tmp_path / f"photos{number}" / name
        folder.mkdir(parents=True)
        for shade in range(3):
            Image.new("L", (8, 8), 50 * shade + number).save(folder / f"{shade}.png")
        parts.append(tmp_path / f"{number}.atlas")
        call("ingest", folder.parent, *MODEL, "-o", parts[-1])
    whole = tmp_path / "whole.atlas"
    report = json.loads(call("merge", *parts, "-o", whole, "--json").stdout)
    assert report["classes"] == 2
    assert json.loads(call("info", whole, "--json").stdout)["images"] == {"ok": 6}
    assert "is there already" in call("merge", *parts, "-o", whole, code=1).stderr
    twice = call("merge", parts[0], parts[0], "-o", tmp_path / "twice", code=1)
    assert "--allow-duplicates" in twice.stderr
    said = call("merge", parts[0], parts[0], "-o", tmp_path / "twice", "--allow-duplicates").stdout
    assert f"summit-graph info {tmp_path / 'twice'}" in said
    assert "two atlases or more" in call("merge", parts[0], "-o", tmp_path / "c", code=2).stderr


# Published graphs


@pytest.fixture(scope="session")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An import of two made graphs, beside their files `ag` and `classes.csv`."""
    folder = tmp_path_factory.mktemp("imported")
    published.write(folder / "ag", {number: published.content(number) for number in (3, 270)})
    names = published.class_file(folder / "classes.csv")
    said = call("import-summit", folder, "-o", folder / "x.atlas", "--classes", names).stdout
    assert "2 attribution graphs of 18 neurons and" in " ".join(said.split())
    assert f"summit-graph info {folder / 'x.atlas'}" in said
    return folder / "x.atlas"


def test_published_graphs_are_imported(imported: Path, tmp_path: Path) -> None:
    files = tmp_path / "data" / "ag"
    shutil.copytree(imported.parent / "ag", files)
    (files / "ag-7.json").write_text("{")
    options = ["--classes", imported.parent / "classes.csv", "--atlas", tmp_path / "x.atlas"]
    stopped = call("import-summit", tmp_path, *options, "--strict", code=1).stderr
    assert "ag-7.json: it is not JSON" in stopped
    assert not (tmp_path / "x.atlas").exists()
    result = call("import-summit", tmp_path, *options, "--name", "summit", "--json")
    report = json.loads(result.stdout)
    assert (report["key"], report["classes"], report["already"]) == ("summit", 2, False)
    assert [Path(left["path"]).name for left in report["left_out"]] == ["ag-7.json"]
    assert "ag-7.json is left out: it is not JSON" in " ".join(result.stderr.split())
    header = json.loads((tmp_path / "x.atlas" / "atlas.json").read_text())
    assert header["summit_graph"] == summit_graph.__version__
    again = call("import-summit", tmp_path, *options, "--name", "summit").stdout
    assert "It was there already, the same; nothing was written." in again
    assert "ag-7.json" in again
    call("import-summit", tmp_path, *options, "--name", "other", code=1)
    call("import-summit", tmp_path / "x.atlas", "-o", tmp_path / "y.atlas", code=2)


def test_an_import_is_shown_and_what_is_not_known_is_said(imported: Path, tmp_path: Path) -> None:
    at = ["--atlas", imported]
    shown = call("show", "white wolf", *at).stdout
    assert '"white wolf" (class 270, n02114548): 18 neurons in 9 layers matter most' in shown
    found = json.loads(call("show", "270", *at, "--json").stdout)
    assert (found["votes"], found["similar"], found["confusions"]) == (None, None, None)
    assert found["class"]["images"] is None
    assert {neuron["share"] for neuron in found["neurons"]} == {None}
    first = found["neurons"][0]["name"]
    compared = call("show", "270", "--compare", "3", *at).stdout
    said = call("neuron", first, "--class", "270", *at).stdout
    neuron = json.loads(call("neuron", first, *at, "--json").stdout)
    assert neuron["examples"] is None
    told = call("info", imported).stdout
    info = json.loads(call("info", imported, "--json").stdout)
    assert (info["images"], info["complete"]) == (None, False)
    assert info["partial"].startswith("it holds attribution graphs")
    for text in (shown, said, told):
        assert "not known" in text
    for text in (shown, compared, said, told):
        assert not re.search(r"None|%|\b0 images|nan", text)
    for form in FORMATS:
        assert call("export", "270", "--format", form, *at).stdout


def test_an_import_is_not_ranked_counted_into_or_merged(imported: Path, tmp_path: Path) -> None:
    for arguments in (
        ["rank", imported],
        ["ingest", "digits", *MODEL, "-o", imported],
        ["merge", imported, imported, "-o", tmp_path / "both"],
    ):
        assert "it holds attribution graphs that were published" in call(*arguments, code=1).stderr


# Reading an atlas


def test_show_is_what_the_atlas_says(atlas: Path) -> None:
    said = call("show", "three", "--atlas", atlas).stdout
    with Atlas.open(atlas) as opened:
        graph = opened.attribution_graph("three")
    assert said.startswith(f'"three" (class 3): {len(graph.neurons)} neurons in ')
    for neuron in graph.neurons:
        assert re.search(rf"^  {neuron.name} +[█░]{{10}} ", said, re.MULTILINE)
    assert re.search(r'^  conv1/\d+ → .* → "three"$', said, re.MULTILINE)
    assert "How to read this" in said
    assert not any(line != line.rstrip() for line in said.splitlines())
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.parametrize("name", ["three", "THREE", "thre", "3"])
def test_a_class_is_found_by_name_part_or_index(name: str, atlas: Path) -> None:
    assert call("show", name, "--atlas", atlas).stdout.startswith('"three" (class 3)')


def test_an_unknown_or_ambiguous_class_lists_the_nearest(atlas: Path) -> None:
    assert "The nearest are 'four' (4)" in call("show", "fuor", "--atlas", atlas, code=2).stderr
    told = call("show", "e", "--atlas", atlas, code=2).stderr
    assert "fits 7 classes: 'zero' (0), 'one' (1), 'three' (3)" in told


def test_show_as_json(atlas: Path) -> None:
    document = json.loads(call("show", 3, "--atlas", atlas, "--json").stdout)
    assert document["class"]["name"] == "three"
    assert len(document["neurons"]) == document["class"]["neurons"]
    assert len(document["edges"]) == document["class"]["edges"]
    assert document["votes"]
    assert len(document["similar"]) == 9


def test_show_limits_the_neurons_of_a_layer(atlas: Path) -> None:
    whole = call("show", "eight", "--atlas", atlas).stdout
    few = call("show", "eight", "--atlas", atlas, "--neurons", 1).stdout
    assert len(re.findall(r"^  conv2/\d+ +[█░]", whole, re.MULTILINE)) > 1
    assert len(re.findall(r"^  conv2/\d+ +[█░]", few, re.MULTILINE)) == 1
    assert re.search(r"^  and \d+ more$", few, re.MULTILINE)


def test_two_classes_are_compared(atlas: Path) -> None:
    document = json.loads(
        call("show", "three", "--compare", "eight", "--atlas", atlas, "--json").stdout
    )
    said = call("show", "three", "--compare", "eight", "--atlas", atlas).stdout
    assert said.startswith(f'"three" and "eight" share {len(document["shared"])} neuron')
    for group in ("shared", "only_first", "only_second"):
        for neuron in document[group]:
            assert f"{neuron['name']} (" in said


def test_info_says_what_the_atlas_holds(atlas: Path) -> None:
    said = call("info", atlas).stdout
    assert "digits: 899 images" in said
    assert "10 with images, of 10" in said
    assert "mass 0.075, damping 0.85" in said
    document = json.loads(call("info", "--atlas", atlas, "--json").stdout)
    assert document["images"] == {"ok": 899}
    assert [record["name"] for record in document["classes"]][:2] == ["zero", "one"]
    assert document["identity"]["parameters"]["k"] == 5


def test_a_neuron_says_its_classes_and_neighbours(atlas: Path) -> None:
    with Atlas.open(atlas) as opened:
        name = next(
            neuron.name
            for neuron in opened.attribution_graph("three").neurons
            if neuron.layer == "conv3"
        )
    said = call("neuron", name, "--class", "three", "--atlas", atlas).stdout
    assert said.startswith(f"{name}: in the attribution graph of ")
    assert re.search(r"^  fed by  conv2/", said, re.MULTILINE)
    assert re.search(r"^  feeds   conv4/", said, re.MULTILINE)
    document = json.loads(call("neuron", name, "--class", 3, "--atlas", atlas, "--json").stdout)
    assert document["name"] == name
    assert document["neighbours"]["class"]["name"] == "three"
    assert len(document["examples"]) == 10
    assert "neighbours" not in json.loads(call("neuron", name, "--atlas", atlas, "--json").stdout)
    assert "conv1 has the channels 0 to 15" in (
        call("neuron", "conv1/99", "--atlas", atlas, code=2).stderr
    )


@pytest.mark.parametrize("name", list(FORMATS))
def test_export_writes_every_format(name: str, atlas: Path, tmp_path: Path) -> None:
    said = call("export", "three", "--format", name, "--atlas", atlas).stdout_bytes
    path = tmp_path / f"graph.{name}"
    result = call("export", "three", "-o", path, "--atlas", atlas)
    assert path.read_bytes() == said, "the ending says the format"
    assert result.stdout == ""
    assert f"as {name}." in result.stderr
    with Atlas.open(atlas) as opened:
        graph = opened.attribution_graph("three")
    text = said.decode("utf-8")
    readers: dict[str, Any] = {
        "json": lambda: len(json.loads(text)["edges"]),
        "csv": lambda: len(list(csv.DictReader(io.StringIO(text, newline="")))),
        "graphml": lambda: networkx.parse_graphml(text).number_of_edges(),
        "gexf": lambda: networkx.read_gexf(io.BytesIO(said)).number_of_edges(),
        "dot": lambda: text.count(" -> "),
    }
    assert readers[name]() == len(graph.edges)


def test_export_is_json_where_nothing_else_is_said(atlas: Path) -> None:
    assert json.loads(call("export", "three", "--atlas", atlas).stdout)["neurons"]


def test_export_to_a_place_that_is_not_there(atlas: Path, tmp_path: Path) -> None:
    path = tmp_path / "no" / "graph.dot"
    told = call("export", "three", "-o", path, "--atlas", atlas, code=1).stderr
    assert told == (
        f"Error: No such file or directory: {path}. "
        "Check the path, its permissions and the free space.\n"
    )


# Which atlas


def test_the_atlas_is_the_only_one_here_or_the_variables(
    atlas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(options.ATLAS_VARIABLE, raising=False)
    (tmp_path / "photos").mkdir()
    told = call("info", code=2, folder=tmp_path).stderr
    assert "there is no atlas here" in told
    assert options.ATLAS_VARIABLE in told
    assert "summit-graph demo" in told
    shutil.copytree(atlas, tmp_path / "a", symlinks=True)
    assert call("show", 3, folder=tmp_path).stdout.startswith('"three"')
    assert call("info", folder=tmp_path / "a").stdout.startswith("atlas")
    shutil.copytree(atlas, tmp_path / "b", symlinks=True)
    told = call("info", code=2, folder=tmp_path).stderr
    assert "there are 2 atlases here: a, b" in told
    monkeypatch.setenv(options.ATLAS_VARIABLE, "b")
    assert re.match("atlas +b ", call("info", folder=tmp_path).stdout)
    assert re.match("atlas +a ", call("info", "a", folder=tmp_path).stdout)


def test_an_atlas_that_is_not_there(tmp_path: Path) -> None:
    told = call("info", tmp_path / "none", code=1).stderr
    assert f"there is no atlas at {tmp_path / 'none'}" in told


# A model's layers


def test_layers_need_no_image() -> None:
    said = call("layers", *MODEL, "--layers", "conv1", "--layers", "conv4", "--all", "--check")
    assert "2 chosen layers with 48 neurons, 2 hidden layers, 4 hops, 10 outputs" in (
        " ".join(said.stdout.split())
    )
    assert re.search(r"^conv3\.conv +32 × 4 × 4 +hidden$", said.stdout, re.MULTILINE)
    assert re.search(r"^conv2.norm +24 × 8 × 8$", said.stdout, re.MULTILINE)
    assert "The trace is right" in said.stdout


def test_layers_as_json() -> None:
    document = json.loads(call("layers", *MODEL, "--all", "--check", "--json").stdout)
    assert [layer["name"] for layer in document["layers"]] == ["conv1", "conv2", "conv3", "conv4"]
    assert [(hop["source"], hop["target"]) for hop in document["hops"]] == [
        ("conv1", "conv2"),
        ("conv2", "conv3"),
        ("conv2", "conv4"),
        ("conv3", "conv4"),
    ]
    assert "conv1.norm" in [choice["name"] for choice in document["choices"]]
    assert all(test["holds"] for test in document["completeness"] + document["source"])
    bare = json.loads(call("layers", *MODEL, "--json").stdout)
    assert not {"choices", "completeness", "source"} & set(bare)


def test_a_trace_that_is_wrong_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    from summit_graph.network import check

    wrong = (check.Completeness("conv2", 1.0, 1.0, 24, 0),)
    monkeypatch.setattr(check, "completeness", lambda network, images: wrong)
    result = call("layers", *MODEL, "--check", code=1)
    assert "The trace is wrong in 1 place." in result.stdout
    assert "Error: the trace of digits_cnn is wrong" in result.stderr


# The demo


@pytest.mark.slow
def test_the_demo_shows_a_class_and_what_to_try(tmp_path: Path) -> None:
    result = call("demo", folder=tmp_path)
    assert '"three" (class 3): ' in result.stdout
    assert "How to read this" in result.stdout
    tries = [
        line.split() for line in result.stdout.splitlines() if line.startswith("  summit-graph ")
    ]
    own = [line[1:] for line in tries if any("digits.atlas" in word for word in line)]
    assert {line[0] for line in own} == {"view", "show", "neuron", "rank", "export", "load"}
    for line in own:
        # tests/graphdb/test_commands.py has the server for the one, test_cli_pictures.py for the
        # other, which goes on until it is interrupted.
        if line[0] not in ("load", "view"):
            call(*line, folder=tmp_path)
    page = tmp_path.resolve() / "digits.pages" / "index.html"
    lines = result.stdout.splitlines()
    assert f"  {page}" in lines
    assert page.is_file()
    assert max(len(line) for line in lines if str(page) not in line) <= 80
    again = call("demo", folder=tmp_path)
    assert "899 images (none new)" in " ".join(again.stdout.split())
    document = json.loads(call("demo", "--json", folder=tmp_path).stdout)
    assert document["graph"]["class"]["name"] == "three"
    assert document["ingest"]["top1"] > 0.95
    assert document["features"]["stronger"] >= 0.9 * document["features"]["compared"] > 0
    assert document["features"]["made"] == 0
    assert document["pages"]["index"] == str(page)


def test_the_demo_says_where_it_cannot_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    told = call("demo", code=1, folder=tmp_path).stderr
    assert told == (
        f"Error: {tmp_path.resolve()} cannot be written to. Keep the demo's atlas elsewhere: "
        "summit-graph demo --atlas DIR.\n"
    )


@pytest.mark.slow
def test_the_demo_takes_less_than_half_a_minute(tmp_path: Path) -> None:
    """Of the processor's time, which is what it takes on a machine that does nothing else."""
    before = os.times()
    done = process("demo", cwd=tmp_path)
    after = os.times()
    assert done.returncode == 0
    taken = after.children_user + after.children_system
    assert taken - before.children_user - before.children_system < 30
    assert b"Traceback" not in done.stderr


# Errors, pipes, encodings


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(cli, "_opened", fail)


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (AtlasError("it is gone."), 1, "Error: it is gone.\n"),
        (
            ValueError("odd\nthing"),
            1,
            "Error: ValueError: odd. This was not foreseen; to see where it happened, run the same "
            "command again with --debug.\n",
        ),
        (ZeroDivisionError(), 1, "Error: ZeroDivisionError. This was not foreseen;"),
        (OSError(28, "No space left on device", "/x"), 1, "Error: No space left on device: /x."),
        (MemoryError(), 1, "Error: the memory is used up."),
        (KeyboardInterrupt(), 130, "Error: stopped.\n"),
    ],
)
def test_every_error_is_one_message(
    error: BaseException, code: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, error)
    result = call("info", code=code)
    assert result.stderr.startswith(told)
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    debugged = call("--debug", "info", code=code)
    assert debugged.stderr.startswith("Traceback")
    assert debugged.stderr.endswith(result.stderr)


def test_debug_may_stand_anywhere_but_behind_two_dashes(tmp_path: Path) -> None:
    done = process("info", tmp_path / "none", "--debug")
    assert done.returncode == 1
    assert done.stderr.startswith(b"Traceback")
    assert b"Error: there is no atlas" in done.stderr
    done = process("show", "--", "--debug", cwd=tmp_path)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_error(atlas: Path) -> None:
    for arguments in (["show", "three"], ["info", "--json"], ["export", "three"]):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [*RUN, *arguments],
            stdout=writing,
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                options.ATLAS_VARIABLE: str(atlas),
            },
            timeout=60,
        )
        os.close(writing)
        assert done.stderr == b""
        assert done.returncode == 1


def test_an_output_that_is_not_utf8_gets_ascii(atlas: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    done = process("show", "three", "--atlas", atlas, env=env)
    assert done.returncode == 0
    said = done.stdout.decode("ascii")
    assert re.search(r"^  conv1/\d+ +#+\.+ +\d+ %", said, re.MULTILINE)
    assert ' -> "three"' in said
    assert "\\u" not in said


@pytest.mark.slow
def test_strange_names_are_printed_and_exported(atlas: Path, tmp_path: Path) -> None:
    place = tmp_path / "strange.atlas"
    shutil.copytree(atlas, place, symlinks=True)
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = next(place.glob(".tables/*/classes.parquet"))
    table = pq.read_table(file)
    names = ["Fäßchen 狼 [bold]\x1b[31m", *table.column("name").to_pylist()[1:]]
    column = table.schema.get_field_index("name")
    file.unlink()
    pq.write_table(table.set_column(column, "name", pa.array(names)), file)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    done = process("show", "0", "--atlas", place, env=env)
    assert done.returncode == 0
    assert rb'"F\xe4\xdfchen \u72fc [bold]\x1b[31m" (class 0)' in done.stdout
    assert (
        json.loads(process("show", 0, "--atlas", place, "--json", env=env).stdout)["class"]["name"]
        == names[0]
    )
    exported = process("export", 0, "--atlas", place, "--format", "json", env=env).stdout
    assert json.loads(exported.decode("utf-8"))["class"]["name"] == names[0]


def test_json_is_all_that_standard_output_holds(atlas: Path, tmp_path: Path) -> None:
    place = tmp_path / "again.atlas"
    shutil.copytree(atlas, place, symlinks=True)
    for arguments in (
        ["info", place], ["show", "3", "--atlas", place], ["neuron", "conv1/1", "--atlas", place],
        ["rank", place], ["layers", *MODEL], ["show", "3", "--compare", "8", "--atlas", place],
    ):  # fmt: skip
        said = call(*arguments, "--json").stdout
        assert isinstance(json.loads(said), dict)
        assert said.isascii()


def test_the_commands_hold_no_more_than_they_parse_and_print() -> None:
    """No command imports tensors or tables by itself at the top of the module."""
    tree = ast.parse(Path(cli.__file__).read_text(encoding="utf-8"))
    top = {
        alias.name.partition(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert not top & {"torch", "numpy", "pyarrow", "rich"}
