from __future__ import annotations

import re

import neo4j
import pytest

from summit_graph.graphdb.connection import Connection, opened, write_session
from summit_graph.graphdb.load import make_indexes
from summit_graph.graphdb.model import (
    INDEXES,
    NODES,
    RELATIONSHIPS,
    class_key,
    image_key,
    layer_key,
    neuron_key,
)

SERVERS = ["connection", "lts_connection"]


def test_keys() -> None:
    assert layer_key("m", "mixed/a") == "m/layer/mixed/a"
    assert neuron_key("m", "mixed/a", 3) == "m/mixed/a/3"
    assert class_key("m", 270) == "m/class/270"
    assert image_key("m", 0) == "m/image/0"


def test_every_kind_of_relationship_joins_kinds_of_nodes() -> None:
    for relationship in RELATIONSHIPS.values():
        assert {relationship.start, relationship.end} <= NODES.keys()
    for node in NODES.values():
        assert node.properties.names[0] == "key"


def test_labels_types_and_properties_need_no_quotes() -> None:
    names = [*NODES, *RELATIONSHIPS]
    for kind in (*NODES.values(), *RELATIONSHIPS.values()):
        names += kind.properties.names
    assert all(re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) for name in names)


@pytest.mark.parametrize("name", SERVERS)
def test_constraints_and_indexes(name: str, request: pytest.FixtureRequest) -> None:
    connection: Connection = request.getfixturevalue(name)
    with opened(connection) as driver, write_session(driver, connection) as session:
        make_indexes(session)
        make_indexes(session)
        there = {row["name"]: row for row in session.run("SHOW INDEXES").data()}
        unique = {
            (row["labelsOrTypes"][0], *row["properties"])
            for row in session.run("SHOW CONSTRAINTS").data()
            if row["type"] in ("UNIQUENESS", "NODE_PROPERTY_UNIQUENESS")
        }
        assert {(label, "key") for label in NODES} <= unique
        for index in INDEXES:
            assert there[index.name]["state"] == "ONLINE"
        found = {
            (row["entityType"], tuple(row["labelsOrTypes"] or ()), tuple(row["properties"] or ()))
            for row in there.values()
        }
    assert {
        ("NODE", ("Class",), ("name",)),
        ("NODE", ("Image",), ("path",)),
        ("RELATIONSHIP", ("INFLUENCES",), ("class",)),
        ("RELATIONSHIP", ("INFLUENCES",), ("class", "selected")),
        ("RELATIONSHIP", ("SIMILAR_TO",), ("layer",)),
        ("RELATIONSHIP", ("EXAMPLE",), ("class",)),
    } <= found


def operators(plan: dict[str, object]) -> list[str]:
    name = str(plan["operatorType"]).split("@")[0]
    children = plan.get("children", [])
    assert isinstance(children, list)
    return [name, *(found for child in children for found in operators(child))]


def plan_of(session: neo4j.Session, text: str, **parameters: object) -> list[str]:
    summary = session.run(f"EXPLAIN {text}", parameters).consume()
    assert summary.plan is not None
    return operators(summary.plan)
