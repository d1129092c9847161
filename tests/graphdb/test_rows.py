from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from graphdb import atlases, dump

from summit_graph.atlas.atlas import Atlas
from summit_graph.atlas.generation import locate
from summit_graph.errors import AtlasError, UsageError
from summit_graph.graphdb import rows
from summit_graph.graphdb.model import END, NODES, RELATIONSHIPS, START, Node
from summit_graph.graphdb.rows import GraphRows


def graph(found: GraphRows) -> dump.Graph:
    """The rows as the database would hold them."""
    nodes: dict[tuple[str, str], dict[str, Any]] = {}
    relationships: Counter[Any] = Counter()
    names = {
        label: [(label, key) for key in keys.to_pylist()] for label, keys in found.keys.items()
    }
    for kind, table in found.tables():
        for row in table.to_pylist():
            if isinstance(kind, Node):
                assert names[kind.label][_place(nodes, kind.label)] == (kind.label, row["key"])
                nodes[kind.label, row["key"]] = {
                    name: value for name, value in row.items() if value is not None
                }
            else:
                ends = (names[kind.start][row.pop(START)], names[kind.end][row.pop(END)])
                relationships[dump.relationship(kind.type, *ends, row)] += 1
    return dump.Graph(nodes, relationships)


def _place(nodes: dict[tuple[str, str], Any], label: str) -> int:
    return sum(name == label for name, _ in nodes)


@pytest.mark.parametrize("edges", ["graph", "attribution"])
@pytest.mark.parametrize("make", [atlases.toy, atlases.hostile])
def test_the_rows_are_those_of_the_definition(make: Any, edges: str, tmp_path: Path) -> None:
    path = make(tmp_path / "atlas")
    with Atlas.open(path) as atlas:
        dump.assert_same(graph(GraphRows(atlas, edges)), dump.expected(path, edges))


def test_what_is_selected_is_a_part_of_the_graph(tmp_path: Path) -> None:
    with Atlas.open(atlases.toy(tmp_path / "atlas")) as atlas:
        whole, part = GraphRows(atlas).counts, GraphRows(atlas, "attribution").counts
        selected = sum(
            "selected" in dict(values)
            for type_, _, _, values in graph(GraphRows(atlas)).relationships.elements()
            if type_ == "INFLUENCES"
        )
    assert 0 < part["INFLUENCES"] == selected < whole["INFLUENCES"]


def test_the_model(tmp_path: Path) -> None:
    path = atlases.toy(tmp_path / "atlas")
    with Atlas.open(path) as atlas:
        found = GraphRows(atlas)
        kind, table = next(found.tables())
        ok = sum(row["status"] == "ok" for row in atlas.images.to_pylist())
        values = table.to_pylist()
    assert kind is NODES["Model"]
    assert values == [found.model | {"loaded": True}]
    assert found.model | {"identity": "", "fingerprint": ""} == {
        "key": "toy-0",
        "name": "toy-0",
        "spec": None,
        "weights": "aa" * 32,
        "dataset": "made",
        "grouping": "label",
        "images": ok,
        "mass": 0.075,
        "damping": None,
        "edges": "graph",
        "embedding": True,
        "identity": "",
        "fingerprint": "",
        "partial": None,
        "summit_graph": None,
    }


def test_counts_are_those_of_the_rows(tmp_path: Path) -> None:
    with Atlas.open(atlases.toy(tmp_path / "atlas")) as atlas:
        found = GraphRows(atlas)
        there = graph(found)
    counted = Counter(label for label, _ in there.nodes)
    counted.update(type_ for type_, *_ in there.relationships.elements())
    assert {name: number for name, number in found.counts.items() if number} == counted
    assert set(found.counts) == {*NODES, *RELATIONSHIPS}


def test_a_small_chunk_gives_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Atlas.open(atlases.toy(tmp_path / "atlas")) as atlas:
        whole, fingerprint = graph(GraphRows(atlas)), GraphRows(atlas).fingerprint
        monkeypatch.setattr(rows, "_CHUNK", 7)
        assert graph(GraphRows(atlas)) == whole
        assert GraphRows(atlas).fingerprint == fingerprint


def fingerprint(path: Path, edges: str = "graph") -> str:
    with Atlas.open(path) as atlas:
        return GraphRows(atlas, edges).fingerprint


def test_the_fingerprint_is_of_the_content_alone(tmp_path: Path) -> None:
    path = atlases.toy(tmp_path / "atlas")
    before = fingerprint(path)
    assert (
        fingerprint(atlases.toy(tmp_path / "again")) == before == fingerprint(path, "attribution")
    )
    for name in ("edges", "classes", "similarity", "images"):
        atlases.rewrite(path, name, lambda table: table, row_group_size=5, compression="none")
    assert fingerprint(path) == before


@pytest.mark.parametrize(
    ("name", "column", "change"),
    [
        ("edges", "count", lambda values: [values[0] + 1, *values[1:]]),
        ("ranks", "selected", lambda values: [not values[0], *values[1:]]),
        ("ranks", "pagerank", lambda values: [values[0] * (1 + 2**-52), *values[1:]]),
        ("classes", "name", lambda values: ["White wolf", *values[1:]]),
        ("classes", "name", lambda values: [values[0] + values[1][0], values[1][1:], *values[2:]]),
        ("classes", "synset", lambda values: ["" if value is None else value for value in values]),
        ("classes", "probability", lambda values: [values[0][::-1], *values[1:]]),
        ("similarity", "layer", lambda values: [0 if v is None else v for v in values]),
        ("embedding", "x", lambda values: [values[0] + 1, *values[1:]]),
        ("images", "path", lambda values: values[::-1]),
        ("examples", "row", lambda values: [values[0] + 1, *values[1:]]),
    ],
)
def test_the_fingerprint_notices_a_change(
    name: str, column: str, change: Any, tmp_path: Path
) -> None:
    path = atlases.toy(tmp_path / "atlas")
    before = fingerprint(path)

    atlases.change(path, name, column, change)
    assert fingerprint(path) != before


def test_identity_stays_when_images_are_added(tmp_path: Path) -> None:
    with (
        Atlas.open(atlases.toy(tmp_path / "few", 20)) as few,
        Atlas.open(atlases.toy(tmp_path / "more", 30)) as more,
        Atlas.open(atlases.toy(tmp_path / "other", 20, weights_hash="bb")) as other,
    ):
        assert GraphRows(few).identity == GraphRows(more).identity
        assert GraphRows(few).fingerprint != GraphRows(more).fingerprint
        assert GraphRows(few).identity != GraphRows(other).identity


def header(path: Path, **changes: Any) -> None:
    file = locate(path) / "atlas.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_neurons_that_are_left_out_or_always_active(tmp_path: Path) -> None:
    path = atlases.toy(tmp_path / "atlas")
    ranking = {"mass": 0.1, "damping": 0.5, "sources": None, "exclude": ["mixed/?/1"]}
    header(
        path,
        ranking={**ranking, "exclude_always_active": True},
        always_active=[[0, 2]],
    )
    with Atlas.open(path) as atlas:
        found = graph(GraphRows(atlas)).nodes
        model = GraphRows(atlas).model
    flags = {
        name.removeprefix("toy-0/"): {key for key in ("excluded", "always_active") if node.get(key)}
        for (label, name), node in found.items()
        if label == "Neuron"
    }
    assert {name: flag for name, flag in flags.items() if flag} == {
        "stem/2": {"excluded", "always_active"},
        "mixed/a/1": {"excluded"},
        "mixed/b/1": {"excluded"},
    }
    assert (model["mass"], model["damping"]) == (0.1, 0.5)


def test_what_is_not_known_is_null(tmp_path: Path) -> None:
    path = atlases.toy(tmp_path / "atlas")
    header(path, partial="of a reason", complete=False, ranking=None)
    for name in ("images", "examples", "votes", "confusions", "similarity", "embedding"):
        (locate(path) / f"{name}.parquet").unlink()

    atlases.change(path, "classes", "images", lambda values: [None] * len(values))
    with Atlas.open(path) as atlas:
        found = GraphRows(atlas)
        dump.assert_same(graph(found), dump.expected(path))
        there = graph(found)
    assert found.model["partial"] is True
    assert found.model["images"] is None
    assert found.model["embedding"] is None
    assert not any("share" in dict(values) for *_, values in there.relationships)
    assert not any("images" in node for name, node in there.nodes.items() if name[0] == "Class")


def test_refusals(tmp_path: Path) -> None:
    path = atlases.toy(tmp_path / "unranked", ranked=False)
    with Atlas.open(path) as atlas:
        with pytest.raises(AtlasError, match=r"no table 'edges'.*summit-graph rank"):
            GraphRows(atlas)
        with pytest.raises(UsageError, match="'graph' or 'attribution'"):
            GraphRows(atlas, "some")
