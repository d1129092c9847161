"""Opening a model, what happens to it while it is open, and named queries."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import neo4j
import pytest
from atlas import made

from summit_graph import GraphDB
from summit_graph.atlas.atlas import Atlas
from summit_graph.errors import (
    DatabaseError,
    UnknownClass,
    UnknownLayer,
    UnknownNeuron,
    UsageError,
)
from summit_graph.graphdb.connection import Connection, opened, write_session
from summit_graph.graphdb.database import _chosen
from summit_graph.graphdb.load import load, unload

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.atlas(tmp_path_factory.mktemp("first") / "atlas", made.images(30), key="first")


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.atlas(tmp_path_factory.mktemp("second") / "atlas", made.images(20), key="second")


@pytest.fixture
def loaded(connection: Connection, first: Path, second: Path) -> Iterator[Connection]:
    """A database that holds two models more than it did."""
    load(first, connection)
    load(second, connection)
    yield connection
    unload("first", connection)
    unload("second", connection)


def open_model(connection: Connection, model: str | None = None) -> GraphDB:
    return GraphDB.open(
        model,
        uri=connection.uri,
        user=connection.user,
        password=connection.password,
        database=connection.database,
    )


def write(connection: Connection, text: str, **parameters: object) -> None:
    with opened(connection) as driver, write_session(driver, connection) as session:
        session.run(text, parameters).consume()


# Opening --------------------------------------------------------------------------------------


def test_one_of_several_models(loaded: Connection, first: Path) -> None:
    with Atlas.open(first) as atlas, open_model(loaded, "first") as database:
        assert database.find("tench") == atlas.find("tench")
        info = database.info()
        assert (info["key"], info["edges"], info["loaded"]) == ("first", "graph", True)
        assert info["images"] == atlas.images.column("status").to_pylist().count("ok")
        assert info["grouping"] == "label"
    with pytest.raises(UsageError, match=r"holds \d+ models: .*'first'.*'second'.* Name the one"):
        open_model(loaded)


def test_a_model_that_is_not_there(loaded: Connection) -> None:
    with pytest.raises(DatabaseError, match=r"holds no model 'fisrt'. The nearest are 'first'"):
        open_model(loaded, "fisrt")
    with pytest.raises(DatabaseError, match=r"holds no model 'zzzzz'. It has .*'first'"):
        open_model(loaded, "zzzzz")
    with pytest.raises(DatabaseError, match="holds no model ''"):
        open_model(loaded, "")


def test_the_only_model_needs_no_name(connection: Connection) -> None:
    """Tried in a transaction that sees no other model, and is taken back."""
    with opened(connection) as driver, write_session(driver, connection) as session:
        transaction: Any = session.begin_transaction()
        transaction.run("MATCH (model:Model) DETACH DELETE model").consume()
        with pytest.raises(
            DatabaseError, match=r"holds no model. Load one with `summit-graph load"
        ):
            _chosen(transaction, None, connection.uri)
        transaction.run("CREATE (:Model {key: 'only', loaded: true})").consume()
        assert _chosen(transaction, None, connection.uri)["key"] == "only"
        transaction.run("MATCH (model:Model) REMOVE model.loaded").consume()
        with pytest.raises(DatabaseError, match="is not whole"):
            _chosen(transaction, None, connection.uri)
        transaction.rollback()


def test_a_model_that_is_being_loaded(loaded: Connection) -> None:
    write(loaded, "MATCH (m:Model {key: 'first'}) SET m.loaded = false")
    with pytest.raises(DatabaseError, match=r"'first' in .* is not whole: .* run the same"):
        open_model(loaded, "first")
    with open_model(loaded, "second") as database:
        assert database.classes


def test_the_address_comes_from_the_environment(
    loaded: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEO4J_URI", loaded.uri)
    monkeypatch.setenv("NEO4J_USERNAME", loaded.user)
    monkeypatch.setenv("NEO4J_PASSWORD", loaded.password)
    with GraphDB.open("first", database=loaded.database) as database:
        assert database.classes
    with pytest.raises(DatabaseError, match="does not let"):
        GraphDB.open("first", password="wrong")


def test_the_password_is_nowhere(loaded: Connection) -> None:
    secret = "not-the-p4ssw0rd"
    with pytest.raises(DatabaseError) as refused:
        open_model(replace(loaded, password=secret), "first")
    shown = [str(refused.value), repr(refused.value)]
    with open_model(loaded, "first") as database:
        shown += [repr(database), str(database.info()), repr(database.connection)]
        assert repr(database).startswith("GraphDB('first', uri='")
    assert not [text for text in shown if secret in text or loaded.password in text]


# While it is open -----------------------------------------------------------------------------


def test_a_closed_one_answers_no_more(loaded: Connection) -> None:
    database = open_model(loaded, "first")
    with database:
        assert database.classes
    database.close()
    with pytest.raises(DatabaseError, match=r"is closed. Open the model again"):
        database.attribution_graph(0)


def test_it_cannot_write(loaded: Connection) -> None:
    with open_model(loaded, "first") as database:
        with pytest.raises(DatabaseError, match="refused to write in a session that only reads"):
            database._read(lambda transaction: transaction.run("CREATE (:Probe)").consume())
        probes = database._read(
            lambda transaction: list(transaction.run("MATCH (p:Probe) RETURN p"))
        )
        assert probes == []


def test_a_model_that_is_unloaded(loaded: Connection, second: Path) -> None:
    with open_model(loaded, "second") as database:
        assert database.attribution_graph(0).neurons
        unload("second", loaded)
        with pytest.raises(DatabaseError, match=r"no model 'second' any more: it was unloaded"):
            database.attribution_graph(0)
        load(second, loaded)
        assert database.attribution_graph(0).neurons


def test_a_model_that_is_loaded_anew(
    loaded: Connection, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = made.atlas(tmp_path / "more", made.images(36), key="first")
    with open_model(loaded, "first") as database:
        assert database.classes
        load(more, loaded)
        with pytest.raises(DatabaseError, match=r"'first' was loaded anew .* Open it again"):
            database.activations()
        load(first, loaded, edges="attribution")
        with pytest.raises(DatabaseError, match="loaded anew"):
            database.votes(0)
        load(first, loaded)
        assert database.votes(0)


def test_a_model_that_is_taken_down_during_a_question(loaded: Connection) -> None:
    """What was read is thrown away: the rest of it may be gone already."""
    with open_model(loaded, "first") as database:

        def work(transaction: neo4j.ManagedTransaction) -> int:
            write(loaded, "MATCH (m:Model {key: 'first'}) SET m.loaded = false")
            return 1

        with pytest.raises(DatabaseError, match="is not whole"):
            database._read(work)
        with pytest.raises(DatabaseError, match="is not whole"):
            database.classes  # noqa: B018


def test_edges_of_attribution_graphs_alone(loaded: Connection, first: Path) -> None:
    load(first, loaded, edges="attribution")
    with Atlas.open(first) as atlas, open_model(loaded, "first") as database:
        assert database.info()["edges"] == "attribution"
        assert database.attribution_graph(0) == atlas.attribution_graph(0)
        assert database.compare(0, 2) == atlas.compare(0, 2)
        assert database.neuron("stem/1") == atlas.neuron("stem/1")
        with pytest.raises(DatabaseError, match=r"all edges of every class's graph.*--edges graph"):
            database.neighbours("stem/1", 0)


def test_a_server_that_went_away_is_named(loaded: Connection) -> None:
    database = open_model(loaded, "first")
    with database:
        database._driver.close()
        with pytest.raises(DatabaseError, match=re.escape(loaded.uri)):
            database.attribution_graph(0)


# Named queries --------------------------------------------------------------------------------


def test_names_become_keys(loaded: Connection, first: Path) -> None:
    with Atlas.open(first) as atlas, open_model(loaded, "first") as database:
        graph = atlas.attribution_graph("tench")
        best = graph.neurons[0].name
        for name in ("tench", 2, "n01440764", "first/class/2"):
            result = database.run("attribution-graph", {"class": name})
            assert result.columns[0] == "neuron"
            assert [row[0] for row in result.rows] == [f"first/{n.name}" for n in graph.neurons]
        classes = [seen.name for seen in atlas.neuron(best).classes]
        for name in (best, f"first/{best}"):
            rows = database.run("classes-of-neuron", {"neuron": name}).rows
            assert [row[2] for row in rows] == classes
        (shown,) = atlas.examples(best)[:1]
        by_path, by_number, by_key = (
            database.run("neurons-of-image", {"image": name}).rows
            for name in (shown.path, shown.image, f"first/image/{shown.image}")
        )
        assert by_path == by_number == by_key
        assert f"first/{best}" in {row[0] for row in by_path}
        assert database.run("similar-classes", {"class": "wolf", "layer": "stem"}).rows
        assert {row[0] for row in database.run("layers").rows} == {"stem", "mixed/a", "mixed/b"}
        rows = database.run("shared-neurons", {"classes": ["tench", "white wolf"]}).rows
        shared = {f"first/{neuron.name}" for neuron in atlas.compare(0, 2).shared}
        assert {row[0] for row in rows} == shared


@pytest.mark.parametrize(
    ("name", "parameters", "error"),
    [
        ("attribution-graf", {}, UsageError),
        ("attribution-graph", {}, UsageError),
        ("attribution-graph", {"class": "nothing"}, UnknownClass),
        ("attribution-graph", {"class": "second/class/0"}, UnknownClass),
        ("attribution-graph", {"class": 1.5}, UsageError),
        ("attribution-graph", {"class": True}, UsageError),
        ("attribution-graph", {"class": "tench", "other": 1}, UsageError),
        ("classes-of-neuron", {"neuron": "stem"}, UnknownNeuron),
        ("classes-of-neuron", {"neuron": "second/stem/1"}, UnknownNeuron),
        ("classes-of-neuron", {"neuron": 3}, UsageError),
        ("similar-classes", {"class": "tench", "layer": "stem/reduce"}, UnknownLayer),
        ("neurons-of-image", {"image": "nowhere.png"}, UsageError),
        ("layers", {"model": "third"}, DatabaseError),
    ],
)
def test_what_no_query_takes(
    loaded: Connection, name: str, parameters: dict[str, object], error: type[Exception]
) -> None:
    with open_model(loaded, "first") as database, pytest.raises(error):
        database.run(name, parameters)


# The guide ------------------------------------------------------------------------------------

BLOCK = re.compile(r"^```python neo4j\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_guide(
    connection: Connection, demo_atlas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of the guide run in their order, beside the demo's atlas."""
    blocks = BLOCK.findall((ROOT / "docs" / "python.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 3
    shutil.copytree(demo_atlas, tmp_path / "digits.atlas", symlinks=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEO4J_URI", connection.uri)
    monkeypatch.setenv("NEO4J_USERNAME", connection.user)
    monkeypatch.setenv("NEO4J_PASSWORD", connection.password)
    names: dict[str, object] = {"__name__": "example"}
    report = load(demo_atlas, connection)
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    if not report.already:
        unload(report.key, connection)


def test_nothing_heavy_is_imported_for_it() -> None:
    """GraphDB needs neither PyTorch nor py2neo until it is asked for a subgraph."""
    code = "import sys, summit_graph; summit_graph.GraphDB; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert not {"torch", "py2neo", "ipycytoscape"} & set(done.stdout.split())
