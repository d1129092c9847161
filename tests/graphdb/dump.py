"""What a database holds, and what it should hold: the same plain values, to be compared.

`expected` is written again straight from the definition of the graph, row by row from the atlas's
tables, without the code under test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from atlas import made

from summit_graph.atlas.generation import Generation
from summit_graph.graphdb.connection import Connection, opened, read_session

TRANSIENT = {"loader", "progress"}
"""Properties of `Model` while it is being loaded."""


class Graph(NamedTuple):
    """nodes: (label, key) -> properties. relationships: how often each stands there."""

    nodes: dict[tuple[str, str], dict[str, Any]]
    relationships: Counter[Any]


def relationship(type_: str, start: Any, end: Any, properties: Mapping[str, Any]) -> Any:
    values = tuple(sorted((name, value) for name, value in properties.items() if value is not None))
    return (type_, start, end, values)


def dump(connection: Connection, key: str | None = None) -> Graph:
    """All that is in the database, or what is of one model."""
    mine = "n.key = $key OR n.key STARTS WITH $key + '/'" if key is not None else "true"
    with opened(connection) as driver, read_session(driver, connection) as session:
        nodes = {}
        for label, properties in session.run(
            f"MATCH (n) WHERE {mine} RETURN labels(n)[0], properties(n)", key=key
        ):
            assert (label, properties["key"]) not in nodes
            nodes[label, properties["key"]] = properties
        relationships = Counter(
            relationship(type_, tuple(start), tuple(end), properties)
            for type_, start, end, properties in session.run(
                f"MATCH (n)-[r]->(m) WHERE {mine} "
                "RETURN type(r), [labels(n)[0], n.key], [labels(m)[0], m.key], properties(r)",
                key=key,
            )
        )
    return Graph(nodes, relationships)


def expected(path: Path, edges: str = "graph") -> Graph:
    """The graph that an atlas becomes. Of the node `Model` only the key."""
    tables = {name: table.to_pylist() for name, table in made.tables(path).items()}
    header = Generation.current(path).header
    model = header["key"]
    layers = {row["layer"]: row for row in tables["layers"] if row["chosen"]}
    classes = {row["class"]: row for row in tables["classes"]}
    activations = rows_of(tables, "activations", layers)
    ranks = rows_of(tables, "ranks", layers)
    counts = {(row["class"], row["layer"], row["channel"]): row["count"] for row in activations}
    selected = {(row["class"], row["layer"], row["channel"]) for row in ranks if row["selected"]}
    always = {tuple(neuron) for neuron in header.get("always_active") or []}
    ranking = header.get("ranking") or {}
    left_out = set(ranking.get("exclude", ()))

    def neuron(layer: int, channel: int) -> tuple[str, str]:
        return ("Neuron", f"{model}/{layers[layer]['name']}/{channel}")

    def of_class(index: int) -> tuple[str, str]:
        return ("Class", f"{model}/class/{index}")

    def share(row: Mapping[str, Any]) -> float | None:
        images = classes[row["class"]]["images"]
        return row["count"] / images if images else None

    nodes: dict[tuple[str, str], dict[str, Any]] = {("Model", model): {"key": model}}
    found: list[Any] = []
    number = 0
    for layer, row in layers.items():
        key = f"{model}/layer/{row['name']}"
        names = ("name", "channels", "height", "width")
        nodes["Layer", key] = {"key": key, "index": layer} | {name: row[name] for name in names}
        found.append(relationship("HAS_LAYER", ("Model", model), ("Layer", key), {}))
        for channel in range(row["channels"]):
            name = neuron(layer, channel)
            flagged = (layer, channel) in always
            nodes[name] = {
                "key": name[1],
                "name": f"{row['name']}/{channel}",
                "index": number,
                "layer": row["name"],
                "channel": channel,
                "excluded": f"{row['name']}/{channel}" in left_out
                or (flagged and ranking.get("exclude_always_active"))
                or None,
                "always_active": flagged or None,
            }
            number += 1
            found.append(relationship("HAS_NEURON", ("Layer", key), name, {}))
    confusions = rows_of(tables, "confusions", layers)
    none = {row["class"]: row["count"] for row in confusions if row["predicted"] == -1}
    selections = {row["class"]: row for row in tables["selections"]}
    for index, row in classes.items():
        name = of_class(index)
        told = ("name", "synset", "images", "top1", "top5", "probability")
        properties = {"key": name[1], "index": index} | {name: row[name] for name in told}
        selection = selections.get(index, {})
        for column in ("mass", "threshold", "neurons", "edges", "converged"):
            properties[column] = selection.get(column)
        unconnected = selection.get("unconnected") or []
        properties["unconnected"] = [layers[layer]["name"] for layer in unconnected] or None
        properties["confused_with_none"] = none.get(index)
        nodes[name] = properties
        found.append(relationship("HAS_CLASS", ("Model", model), name, {}))
    examples = rows_of(tables, "examples", layers)
    for image in {row["image"] for row in examples}:
        key = f"{model}/image/{image}"
        path_ = next(row["path"] for row in tables["images"] if row["image"] == image)
        nodes["Image", key] = {"key": key, "index": image, "path": path_}
    for row in activations:
        found.append(
            relationship(
                "ACTIVATES",
                of_class(row["class"]),
                neuron(row["layer"], row["channel"]),
                {"count": row["count"], "share": share(row)},
            )
        )
    for row in ranks:
        ends = (of_class(row["class"]), neuron(row["layer"], row["channel"]))
        values = {"pagerank": row["pagerank"], "rank": row["rank"]}
        found.append(relationship("RANKS", *ends, values))
        if row["selected"]:
            count = counts.get((row["class"], row["layer"], row["channel"]), 0)
            found.append(relationship("ATTRIBUTES", *ends, values | {"count": count}))
    feeds = set()
    for row in tables["edges"]:
        source, target = (row["source_layer"], row["source"]), (row["target_layer"], row["target"])
        inside = {(row["class"], *source), (row["class"], *target)} <= selected
        if edges == "attribution" and not inside:
            continue
        feeds.add((source[0], target[0]))
        values = {"class": of_class(row["class"])[1], "count": row["count"], "share": share(row)}
        values["selected"] = inside or None
        found.append(relationship("INFLUENCES", neuron(*source), neuron(*target), values))
    for source_layer, target_layer in feeds:
        ends = [
            ("Layer", f"{model}/layer/{layers[n]['name']}") for n in (source_layer, target_layer)
        ]
        found.append(relationship("FEEDS", *ends, {}))
    for row in rows_of(tables, "votes", layers):
        found.append(
            relationship(
                "VOTES_FOR",
                neuron(row["layer"], row["channel"]),
                of_class(row["class"]),
                {"count": row["count"], "share": share(row)},
            )
        )
    for row in tables.get("similarity", []):
        layer = None if row["layer"] is None else layers[row["layer"]]["name"]
        values = {"cosine": row["cosine"], "layer": layer}
        ends = (of_class(row["class"]), of_class(row["other"]))
        found.append(relationship("SIMILAR_TO", *ends, values))
    for row in rows_of(tables, "embedding", layers):
        layer = ("Layer", f"{model}/layer/{layers[row['layer']]['name']}")
        values = {"x": row["x"], "y": row["y"]}
        found.append(relationship("PLACED_IN", of_class(row["class"]), layer, values))
    for row in confusions:
        if row["predicted"] != -1:
            ends = (of_class(row["class"]), of_class(row["predicted"]))
            values = {"count": row["count"], "share": share(row)}
            found.append(relationship("CONFUSED_WITH", *ends, values))
    for row in examples:
        values = {name: row[name] for name in ("rank", "activation", "row", "column")}
        values["class"] = None if row["class"] is None else of_class(row["class"])[1]
        end = ("Image", f"{model}/image/{row['image']}")
        found.append(relationship("EXAMPLE", neuron(row["layer"], row["channel"]), end, values))
    return Graph(
        {
            name: {column: value for column, value in node.items() if value is not None}
            for name, node in nodes.items()
        },
        Counter(found),
    )


def rows_of(tables: Mapping[str, Any], name: str, layers: Mapping[int, Any]) -> list[Any]:
    """The rows of a table that may not be there, those of chosen layers."""
    return [row for row in tables.get(name, []) if row.get("layer", next(iter(layers))) in layers]


def assert_same(found: Graph, wanted: Graph) -> None:
    """Equal but for the node `Model`, which has to be whole."""
    for (label, key), node in found.nodes.items():
        if label == "Model":
            assert node["loaded"] is True, key
            assert not TRANSIENT & node.keys()
    assert found.nodes.keys() == wanted.nodes.keys()
    for name, node in wanted.nodes.items():
        if name[0] != "Model":
            assert found.nodes[name] == node
    assert found.relationships == wanted.relationships
