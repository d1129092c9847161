from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from atlas import made
from graphdb import atlases, dump
from graphdb.watching import Watching
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from summit_graph.atlas.atlas import Atlas
from summit_graph.atlas.schema import ClassEntry
from summit_graph.errors import DatabaseError, UsageError
from summit_graph.graphdb import load as loading
from summit_graph.graphdb.connection import Connection, opened, read_session, write_session
from summit_graph.graphdb.load import (
    batches,
    creating,
    estimate,
    first_query,
    literal,
    load,
    make_indexes,
    parameters,
    unload,
)
from summit_graph.graphdb.model import NODES, RELATIONSHIPS, Relationship
from summit_graph.graphdb.rows import GraphRows

SERVERS = ["connection", "lts_connection"]
LOADED = "MATCH (m:Model {key: 'toy-0'}) RETURN m.loaded"


@pytest.fixture(params=SERVERS)
def either(request: pytest.FixtureRequest) -> Connection:
    """A database of the pinned Neo4j, and one of the long-term one."""
    found: Connection = request.getfixturevalue(request.param)
    return found


@pytest.fixture(autouse=True)
def _cleared(request: pytest.FixtureRequest) -> Iterator[None]:
    """Removes what a test loaded."""
    name = next((name for name in ("either", *SERVERS) if name in request.fixturenames), None)
    if name is None:
        yield
        return
    connection = request.getfixturevalue(name)
    before = models(connection)
    yield
    for key in models(connection):
        if key not in before:
            unload(key, connection)


def run(connection: Connection, text: str, **values: Any) -> list[Any]:
    with opened(connection) as driver, write_session(driver, connection) as session:
        return [record.values() for record in session.run(text, values)]


def models(connection: Connection) -> list[str]:
    return [key for (key,) in run(connection, "MATCH (m:Model) RETURN m.key ORDER BY m.key")]


@pytest.mark.parametrize("edges", ["graph", "attribution"])
def test_loaded_is_what_the_definition_says(edges: str, either: Connection, tmp_path: Path) -> None:
    path = atlases.toy(tmp_path / "atlas")
    report = load(path, either, edges=edges, batch=50)
    found = dump.dump(either, "toy-0")
    dump.assert_same(found, dump.expected(path, edges))
    with Atlas.open(path) as atlas:
        wanted = {**GraphRows(atlas, edges).model, "loaded": True}
    assert found.nodes["Model", "toy-0"] == {k: v for k, v in wanted.items() if v is not None}
    assert not report.already
    assert (report.key, sum(report.nodes.values())) == ("toy-0", len(found.nodes))
    assert sum(report.relationships.values()) == found.relationships.total()
    assert report.relationships.keys() == RELATIONSHIPS.keys()


def test_hostile_names_arrive_unchanged(either: Connection, tmp_path: Path) -> None:
    path = atlases.hostile(tmp_path / "atlas")
    report = load(path, either)
    dump.assert_same(dump.dump(either, report.key), dump.expected(path))


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["$param", "{a: 1}", "'", '"', "`", "\\", "\n", "🦊", "//", "*/", "\x00", "null", "\\u0027"]
)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    names=st.lists(TEXT, min_size=3, max_size=3),
    layers=st.lists(TEXT, min_size=4, max_size=4, unique=True),
    key=TEXT.filter(bool),
    data=TEXT,
)
def test_any_text_arrives_unchanged(
    names: list[str],
    layers: list[str],
    key: str,
    data: str,
    connection: Connection,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = made.atlas(
        tmp_path_factory.mktemp("any") / "atlas",
        made.images(9),
        key=key,
        layers=[entry._replace(name=name) for entry, name in zip(made.LAYERS, layers, strict=True)],
        classes=[
            ClassEntry(entry.index, name, name, entry.outputs)
            for entry, name in zip(made.CLASSES, names, strict=True)
        ],
        model={"name": data, "spec": data},
        dataset={"name": data},
    )
    load(path, connection)
    found = dump.dump(connection, key)
    unload(key, connection)
    dump.assert_same(found, dump.expected(path))
    assert found.nodes["Model", key]["spec"] == data == found.nodes["Model", key]["dataset"]


def test_twice_is_once(connection: Connection, tmp_path: Path) -> None:
    path = atlases.toy(tmp_path / "atlas")
    first = load(path, connection)
    before = dump.dump(connection)
    watching = Watching(1, lambda: None)
    again = load(path, connection, progress=watching)
    assert (first.already, again.already) == (False, True)
    assert watching.advances == 0
    assert again.nodes == first.nodes
    assert again.relationships == first.relationships
    assert dump.dump(connection) == before


def test_a_changed_atlas_replaces_its_older_self(connection: Connection, tmp_path: Path) -> None:
    load(atlases.toy(tmp_path / "other", key="other"), connection)
    load(atlases.toy(tmp_path / "before", 40), connection)
    other = dump.dump(connection, "other")
    nodes = len(dump.dump(connection).nodes)
    states: list[Any] = []

    def look() -> None:
        states.append(run(connection, "MATCH (m:Model {key: 'toy-0'}) RETURN m.loaded, m.progress"))

    for path, edges in (
        (atlases.toy(tmp_path / "grown", 55), "graph"),
        (tmp_path / "grown", "attribution"),
        (atlases.toy(tmp_path / "shrunk", 12), "graph"),
    ):
        removing = Watching(1, look, "removing what was loaded before")
        report = load(path, connection, edges=edges, progress=removing)
        assert not report.already
        dump.assert_same(dump.dump(connection, "toy-0"), dump.expected(path, edges))
    assert states == [[[False, None]]] * 3
    assert dump.dump(connection, "other") == other
    assert len(dump.dump(connection).nodes) == nodes - len(
        dump.expected(tmp_path / "before").nodes
    ) + len(dump.expected(tmp_path / "shrunk").nodes)


def test_another_model_of_the_same_key_is_refused(connection: Connection, tmp_path: Path) -> None:
    load(atlases.toy(tmp_path / "mine"), connection)
    before = dump.dump(connection)
    path = atlases.toy(tmp_path / "theirs", weights_hash="bb" * 32, dataset={"name": "theirs"})
    with pytest.raises(DatabaseError) as refusal:
        load(path, connection)
    for told in ("'toy-0'", "aaaaaaaa", "bbbbbbbb", "'made'", "'theirs'", "--replace", "--name"):
        assert told in str(refusal.value)
    assert dump.dump(connection) == before
    load(path, connection, replace=True)
    dump.assert_same(dump.dump(connection, "toy-0"), dump.expected(path))


def test_keys_that_could_be_mistaken_are_refused(connection: Connection, tmp_path: Path) -> None:
    load(atlases.toy(tmp_path / "one", key="a/b"), connection)
    before = dump.dump(connection)
    for number, key in enumerate(("a", "a/b/c")):
        with pytest.raises(DatabaseError, match="could not be told apart"):
            load(atlases.toy(tmp_path / f"other-{number}", key=key), connection)
    load(atlases.toy(tmp_path / "beside", key="a-b"), connection)
    unload("a-b", connection)
    assert dump.dump(connection) == before


def test_unload_takes_one_model_and_nothing_else(either: Connection, tmp_path: Path) -> None:
    load(atlases.toy(tmp_path / "kept", key="toy"), either)
    before = dump.dump(either)
    path = atlases.toy(tmp_path / "gone", key="toy-1")
    load(path, either)
    run(
        either,
        "MATCH (n:Neuron {key: 'toy-1/stem/0'}) CREATE (:Note {key: 'mine'})-[:ABOUT]->(n)",
    )
    report = unload("toy-1", either)
    wanted = dump.expected(path)
    assert report.key == "toy-1"
    assert report.nodes == len(wanted.nodes)
    assert report.relationships == wanted.relationships.total() + 1
    run(either, "MATCH (n:Note) DELETE n")
    assert dump.dump(either) == before


def test_unload_in_small_transactions_goes_on_where_it_was_cut_off(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dump.dump(connection)
    load(atlases.toy(tmp_path / "atlas"), connection)
    monkeypatch.setattr(loading, "_EMPTIED", 4)

    def cut() -> None:
        raise KeyboardInterrupt

    title = "removing what was loaded before"
    for after in (2, 5, 30):
        with pytest.raises(KeyboardInterrupt):
            unload("toy-0", connection, batch=9, progress=Watching(after, cut, title))
        assert run(connection, LOADED) == [[False]]
    unload("toy-0", connection)
    assert dump.dump(connection) == before


def test_unload_of_what_is_not_there(connection: Connection, tmp_path: Path) -> None:
    load(atlases.toy(tmp_path / "atlas"), connection)
    with pytest.raises(DatabaseError, match=r"no model 'b'. It has .*'toy-0'"):
        unload("b", connection)


def test_a_smaller_batch_goes_on_where_a_larger_one_was_cut_off(
    connection: Connection, tmp_path: Path
) -> None:
    path = atlases.toy(tmp_path / "atlas")

    def cut() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(path, connection, batch=40, progress=Watching(12, cut))
    [[there, loaded]] = run(
        connection, "MATCH (m:Model {key: 'toy-0'}) RETURN m.progress, m.loaded"
    )
    assert 100 < there <= 12 * 40
    assert loaded is False
    watching = Watching(10**9, lambda: None)
    load(path, connection, batch=7, progress=watching)
    dump.assert_same(dump.dump(connection, "toy-0"), dump.expected(path))
    with Atlas.open(path) as atlas:
        rest = sum(1 for _ in batches(GraphRows(atlas), 7, there))
    assert watching.advances == rest + 1


def test_another_atlas_takes_the_place_of_a_half_loaded_one(
    connection: Connection, tmp_path: Path
) -> None:
    def cut() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(atlases.toy(tmp_path / "one"), connection, batch=40, progress=Watching(12, cut))
    path = atlases.toy(tmp_path / "other", 20)
    with pytest.raises(KeyboardInterrupt):
        load(
            path,
            connection,
            progress=Watching(1, cut, "removing what was loaded before"),
        )
    load(path, connection, batch=40)
    dump.assert_same(dump.dump(connection, "toy-0"), dump.expected(path))


def test_batches_hold_a_number_of_rows_and_of_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Atlas.open(atlases.toy(tmp_path / "atlas")) as atlas:
        rows = GraphRows(atlas)
        total = sum(rows.counts.values()) - 1
        whole = [table.to_pylist() for _, table in batches(rows, 10**9)]
        small = list(batches(rows, 8))
        assert max(table.num_rows for _, table in small) == 8
        assert [row for _, table in small for row in table.to_pylist()] == [
            row for rows_ in whole for row in rows_
        ]
        for skip in (0, 1, 7, 100, total - 1, total):
            parts = [table.num_rows for _, table in batches(rows, 8, skip)]
            assert sum(parts) == total - skip
        monkeypatch.setattr(loading, "_BATCH_BYTES", 400)
        bounded = list(batches(rows, 8))
        assert max(table.nbytes for _, table in bounded if table.num_rows > 1) <= 400
        assert sum(table.num_rows for _, table in bounded) == total


@pytest.mark.parametrize("kind", [*NODES.values(), *RELATIONSHIPS.values()], ids=str)
def test_rows_are_created_with_index_seeks_and_no_eager(
    kind: Any, either: Connection, tmp_path: Path
) -> None:
    with opened(either) as driver, write_session(driver, either) as session:
        make_indexes(session)
        values = {f"_{name}": [] for name in kind.properties.names}
        ends = {name: [] for name in ("starts", "ends", "start", "end")}
        plan = session.run(f"EXPLAIN {creating(kind)}", values | ends).consume().plan
    found = list(operators(plan))
    assert not {"Eager", "AllNodesScan", "NodeByLabelScan"} & set(found), found
    if isinstance(kind, Relationship):
        assert sum(name.startswith("NodeUniqueIndexSeek") for name in found) == 2


def operators(plan: Any) -> Iterator[str]:
    yield plan["operatorType"].split("@")[0]
    for child in plan.get("children", []):
        yield from operators(child)


def test_nothing_is_created_where_a_node_is_missing(connection: Connection, tmp_path: Path) -> None:
    path = atlases.toy(tmp_path / "atlas")

    def spoil() -> None:
        run(connection, "MATCH (n:Neuron {key: 'toy-0/stem/3'}) DETACH DELETE n")

    with pytest.raises(DatabaseError, match=r"nodes of the model 'toy-0' are missing"):
        load(path, connection, batch=50, progress=Watching(8, spoil))
    assert run(connection, LOADED) == [[False]]
    unload("toy-0", connection)
    load(path, connection)
    dump.assert_same(dump.dump(connection, "toy-0"), dump.expected(path))


def test_the_estimate_is_exact_but_for_bytes(tmp_path: Path) -> None:
    path = atlases.toy(tmp_path / "atlas")
    for edges in ("graph", "attribution"):
        found, wanted = estimate(path, edges), dump.expected(path, edges)
        assert sum(found.nodes.values()) == len(wanted.nodes)
        assert sum(found.relationships.values()) == wanted.relationships.total()
        assert found.bytes > 0
    assert estimate(path, "attribution").bytes < estimate(path).bytes


def test_the_first_query_draws_an_attribution_graph(either: Connection, tmp_path: Path) -> None:
    for path in (atlases.toy(tmp_path / "toy"), atlases.hostile(tmp_path / "hostile")):
        report = load(path, either)
        with Atlas.open(path) as atlas:
            most = max(atlas.classes, key=lambda record: record.images or 0)
            wanted = {
                f"{report.key}/{neuron.name}"
                for neuron in atlas.attribution_graph(most.index).neurons
            }
        with opened(either) as driver, read_session(driver, either) as session:
            result = session.run(report.first_query)
            graph = result.graph()
            assert {node["key"] for node in graph.nodes} == wanted
            assert {edge["class"] for edge in graph.relationships} == {
                f"{report.key}/class/{most.index}"
            }
        unload(report.key, either)


def test_without_a_graph_the_first_query_draws_the_layers(tmp_path: Path) -> None:
    path = atlases.toy(tmp_path / "atlas")
    atlases.change(path, "selections", "neurons", lambda values: [0] * len(values))
    with Atlas.open(path) as atlas:
        assert "HAS_LAYER" in first_query(GraphRows(atlas))


@pytest.mark.parametrize("name", SERVERS)
def test_literals_are_read_back(name: str, request: pytest.FixtureRequest) -> None:
    connection: Connection = request.getfixturevalue(name)
    texts = [
        *atlases.HOSTILE,
        "\\",
        "'",
        "\\'",
        "\\u0041",
        "a\\\\u0041",
        "\\\\",
        "\x00\x07\x1f",
        "",
    ]
    with opened(connection) as driver, read_session(driver, connection) as session:
        for text in texts:
            assert session.run(f"RETURN {literal(text)}").single(strict=True)[0] == text


def test_parameters_are_columns(tmp_path: Path) -> None:
    with Atlas.open(atlases.toy(tmp_path / "atlas")) as atlas:
        rows = GraphRows(atlas)
        kind, table = next(
            found for found in batches(rows, 5) if found[0] is RELATIONSHIPS["INFLUENCES"]
        )
        found = parameters(kind, table, rows.keys)
    assert set(found) == {
        "starts", "ends", "start", "end", "_class", "_count", "_share", "_selected",
    }  # fmt: skip
    assert len(found["starts"]) == len(set(found["starts"]))
    assert {len(found[name]) for name in ("start", "end", "_count")} == {5}


def test_refusals(connection: Connection, tmp_path: Path) -> None:
    path = atlases.toy(tmp_path / "atlas")
    with pytest.raises(UsageError, match="batch is 0"):
        load(path, connection, batch=0)
    with pytest.raises(UsageError, match="'graph' or 'attribution'"):
        load(path, connection, edges="all")
    with pytest.raises(UsageError, match="batch is -1"):
        unload("toy-0", connection, batch=-1)
