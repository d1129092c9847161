"""The commands for Neo4j, called as a person calls them, on a server that they started."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from graphdb.servers import needs_server
from typer.testing import CliRunner

from summit_graph import Atlas, cli
from summit_graph.cli_neo4j import _pair
from summit_graph.errors import UsageError
from summit_graph.graphdb import queries, server

pytestmark = pytest.mark.slow

RUN = [sys.executable, "-c", "from summit_graph.cli import main; main()"]


def call(*arguments: object, code: int = 0) -> Result:
    """Runs the command line in this process."""
    result = CliRunner().invoke(cli.app, [str(part) for part in arguments])
    assert result.exit_code == code, result.output
    return result


def on_a_terminal(*arguments: object) -> str:
    """What a command prints on a terminal."""
    main, other = pty.openpty()
    environment = {**os.environ, "COLUMNS": "200"}
    with subprocess.Popen(
        [*RUN, *map(str, arguments)],
        stdin=other,
        stdout=other,
        stderr=subprocess.DEVNULL,
        env=environment,
    ):
        os.close(other)
        said = b""
        while True:
            try:
                part = os.read(main, 65536)
            except OSError:  # how Linux says that the other end is closed
                break
            if not part:
                break
            said += part
    os.close(main)
    return said.decode()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of a server that `db up` started, in a pipe; the environment names it."""
    needs_server()
    place = tmp_path_factory.mktemp("commands") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(server.HOME_VARIABLE, str(place))
        for name in ("NEO4J_URI", "NEO4J_USERNAME", "NEO4J_PASSWORD"):
            patch.delenv(name, raising=False)
        said = call("db", "up", "--heap", "512m")
        password = (place / "password").read_text().strip()
        assert password not in said.output
        assert "Neo4j Browser  http://127.0.0.1:" in said.stdout
        yield place
        call("db", "remove", "--yes")
        assert not place.exists()


@pytest.fixture(scope="module")
def loaded(home: Path, demo_atlas: Path) -> dict[str, Any]:
    """The report of loading the demo's atlas."""
    report: dict[str, Any] = json.loads(call("load", demo_atlas, "--json").stdout)
    return report


def test_the_password_is_shown_on_a_terminal_alone(home: Path) -> None:
    password = (home / "password").read_text().strip()
    assert password not in call("db", "status").output
    assert password not in call("db", "status", "--json").output
    refused = call("db", "status", "--show-password", code=2)
    assert password not in refused.output
    assert str(home / "password") in refused.output
    assert password in on_a_terminal("db", "status", "--show-password")
    # It was shown once, when it was made; this server is not new any more.
    assert password not in on_a_terminal("db", "up")


def test_loading_twice_is_loading_once(loaded: dict[str, Any], demo_atlas: Path) -> None:
    assert loaded["already"] is False
    again = json.loads(call("load", "--atlas", demo_atlas, "--json").stdout)
    assert again["already"] is True
    assert again["nodes"] == loaded["nodes"]
    said = call("load", demo_atlas)
    assert "was in Neo4j already" in said.stdout
    assert loaded["first_query"] in said.stdout
    assert "http://127.0.0.1:" in said.stdout
    assert "MB in the database" in said.stderr


def test_queries_are_listed_and_printed() -> None:
    said = call("query").stdout
    assert all(name in said for name in queries.names())
    listed = json.loads(call("query", "--json").stdout)
    assert [entry["name"] for entry in listed] == list(queries.names())
    text = call("query", "attribution-graph", "--text").stdout
    assert text.strip() == queries.query("attribution-graph").text.strip()


def test_a_query_takes_names_and_answers_in_three_ways(
    loaded: dict[str, Any], demo_atlas: Path
) -> None:
    with Atlas.open(demo_atlas) as atlas:
        graph = atlas.attribution_graph("three")
    ask = ("query", "attribution-graph", "--param", "class=three")
    rows = json.loads(call(*ask, "--json").stdout)
    names = [f"{loaded['key']}/{neuron.name}" for neuron in graph.neurons]
    assert [row["neuron"] for row in rows] == names
    assert [row["pagerank"] for row in rows] == [neuron.pagerank for neuron in graph.neurons]
    table = list(csv.DictReader(io.StringIO(call(*ask, "--csv").stdout)))
    assert [row["neuron"] for row in table] == names
    assert [float(row["pagerank"]) for row in table] == [row["pagerank"] for row in rows]
    printed = call(*ask).stdout
    assert all(name in printed for name in names)
    assert f"{len(names)} rows" in printed


def test_wide_rows_stand_one_below_the_other(loaded: dict[str, Any]) -> None:
    said = call("query", "models").stdout
    assert f"\nmodel     {loaded['key']}" in f"\n{said}"
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["attribution-grap"], "attribution-graph"),
        (["attribution-graph"], "class"),
        (["attribution-graph", "-p", "class=nobody"], "no class fits 'nobody'"),
        (["attribution-graph", "-p", "klass=three"], "klass"),
        (["attribution-graph", "-p", "three"], "NAME=VALUE"),
        (["hubs", "-p", "limit=many"], "limit"),
        (["hubs", "--json", "--csv"], "three ways"),
    ],
)
def test_wrong_questions_are_explained(
    loaded: dict[str, Any], arguments: list[str], message: str
) -> None:
    assert message in call("query", *arguments, code=2).stderr


def test_a_pair_may_have_more_signs_of_equality() -> None:
    assert _pair("text=a=b") == ("text", "a=b")
    with pytest.raises(UsageError, match="NAME=VALUE"):
        _pair("=b")


def test_ingest_loads_at_the_end(home: Path, tmp_path: Path) -> None:
    atlas = tmp_path / "again.atlas"
    said = call(
        "ingest", "digits", "--model", cli.DEMO_MODEL, "-o", atlas, "--name", "again",
        "--neo4j", "--json",
    )  # fmt: skip
    report = json.loads(said.stdout)
    assert report["neo4j"]["key"] == "again"
    assert report["neo4j"]["nodes"]["Class"] == report["classes"]
    several = call("query", "hubs", code=2).stderr
    assert "'again'" in several
    assert call("query", "hubs", "--model", "again").stdout
    gone = json.loads(call("unload", "again", "--json").stdout)
    assert gone["nodes"] == sum(report["neo4j"]["nodes"].values())
    assert "again" in call("unload", "again", code=1).stderr


def test_ingest_looks_for_the_database_first(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEO4J_PASSWORD", "not the password")
    atlas = tmp_path / "none.atlas"
    said = call("ingest", "digits", "--model", cli.DEMO_MODEL, "-o", atlas, "--neo4j", code=1)
    assert "does not let 'neo4j' in" in said.stderr
    assert "not the password" not in said.output
    assert not atlas.exists()


def test_bulk_options_do_not_go_with_others(home: Path, demo_atlas: Path, tmp_path: Path) -> None:
    assert "--bulk" in call("load", demo_atlas, "--prepare-only", tmp_path / "x", code=2).stderr
    assert "--uri" in call("load", demo_atlas, "--bulk", "--replace", code=2).stderr


def test_files_for_another_server(demo_atlas: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    said = call("load", demo_atlas, "--bulk", "--prepare-only", folder).stdout
    assert "neo4j-admin database import full" in said
    assert (folder / "schema.cypher").is_file()


def test_without_a_server_there_is_a_hint(
    tmp_path: Path, demo_atlas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(server.HOME_VARIABLE, str(tmp_path / "nothing"))
    monkeypatch.delenv("NEO4J_URI", raising=False)
    assert "summit-graph db up" in call("load", demo_atlas, code=1).stderr
    assert "summit-graph db up" in call("db", "status", code=1).stderr
    assert "No local Neo4j" in call("db", "down").stdout
    assert "--yes" in call("db", "remove", code=2).stderr


def test_the_server_goes_down_and_comes_up(home: Path, loaded: dict[str, Any]) -> None:
    assert call("db", "logs", "--lines", "3").stdout.count("\n") == 3
    assert "is stopped" in call("db", "down").stdout
    assert "does not run" in call("db", "status", code=1).stdout
    call("db", "up")
    models = json.loads(call("query", "models", "--json").stdout)
    assert [model["model"] for model in models] == [loaded["key"]]
