"""Every query of `cypher/`: what its header promises, its plan, and its rows beside the atlas's."""

from __future__ import annotations

import json
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import neo4j
import networkx
import numpy as np
import pytest
from atlas import made

from summit_graph.atlas.atlas import Atlas
from summit_graph.atlas.schema import ClassEntry
from summit_graph.errors import DatabaseError, UsageError
from summit_graph.graphdb import queries
from summit_graph.graphdb.connection import Connection, opened, read_session, write_session
from summit_graph.graphdb.load import load, unload
from summit_graph.graphdb.model import NODES, RELATIONSHIPS
from summit_graph.graphdb.queries import NEEDS, Query, Type, complete, parse, query, run, values
from summit_graph.rank.selection import select
from summit_graph.rank.stage import Ranking
from summit_graph.reranking import rerank

NAMES = queries.names()
ROOT = Path(__file__).parents[2]
SERVERS = ("connection", "lts_connection")

# Headers --------------------------------------------------------------------------------------

HEADER = """\
// What it answers, whatever that is.
//
// More about it: name (text): nothing.
//
// Parameters:
//   class (text): key of a class
//   limit (count, 20): rows at most, in a
//     second line
// Columns:
//   name (text): its name
//   share (number or null): of something
// Needs:
//   edges
// In Neo4j Browser:
//   :param class => "digits/class/3";
//   :param limit => 20;
"""
BODY = """\
MATCH (c:Class {key: $class}) // $no parameter
WITH c, '$none, RETURN x' AS text
CALL (c) { RETURN 1 AS one ORDER BY one LIMIT $limit }
RETURN c.name AS name, {a: [1, 2], b: 3}.a[0] AS share
ORDER BY name, share
"""


def test_a_header_is_read() -> None:
    found = parse("some", HEADER + BODY)
    assert found.name == "some"
    assert found.summary == "What it answers, whatever that is."
    assert found.details == "More about it: name (text): nothing."
    limit = found.parameters[1]
    assert (limit.name, limit.type, limit.required, limit.default) == (
        "limit",
        Type("count"),
        False,
        20,
    )
    assert limit.meaning == "rows at most, in a second line"
    assert [parameter.label for parameter in found.parameters] == ["Class", None]
    assert [(column.name, str(column.type)) for column in found.columns] == [
        ("name", "text"),
        ("share", "number or null"),
    ]
    assert found.needs == {"edges"}
    assert found.text == HEADER + BODY


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("// What it answers, whatever that is.\n", ""),
        ("whatever that is.", "whatever that is"),
        ("// Columns:", "// Rows:"),
        ("//   limit (count, 20)", "//   limit (count 20)"),
        ("//   limit (count, 20)", "// limit (count, 20)"),
        ("limit (count, 20)", "limit (whole, 20)"),
        ("limit (count, 20)", "limit (count, -1)"),
        ("limit (count, 20)", "limit (count, many)"),
        ("limit (count, 20)", "limit (count or null)"),
        ("limit (count, 20)", "limit (number, 20)"),
        ("limit (count, 20)", "most (count, 20)"),
        ("class (text)", "class (count)"),
        ("//   class (text): key of a class\n", ""),
        ("name (text)", 'name (text, "x")'),
        ("name (text)", "title (text)"),
        ("//   edges", "//   everything"),
        ("// Needs:\n//   edges\n// In Neo4j Browser:", "// In Neo4j Browser:\n// Needs:"),
        ("//   :param limit => 20;\n", ""),
        ("limit => 20;", "limit => 20"),
        ("limit => 20;", 'limit => "20";'),
        ("{key: $class}", "{key: 'x'}"),
        ("{key: $class}", "{key: $class, name: $name}"),
        ("AS share\n", "AS share, 1 AS one\n"),
        ("c.name AS name", "c.name"),
        ("AS name, {a: [1, 2], b: 3}.a[0] AS share", "AS name"),
        ("RETURN c.name AS name, {a: [1, 2], b: 3}.a[0] AS share\nORDER BY name, share\n", ""),
    ],
)
def test_a_malformed_header_or_one_that_disagrees_is_refused(old: str, new: str) -> None:
    text = HEADER + BODY
    assert old in text
    with pytest.raises(ValueError, match=r"^some: "):
        parse("some", text.replace(old, new))


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_well_made(name: str) -> None:
    found = query(name)
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name)
    assert found.needs <= set(NEEDS)
    assert all(len(line) <= 100 for line in found.text.splitlines())
    assert found.text.endswith("\n")
    assert not re.search(r"\b(?:CREATE|MERGE|DELETE|SET|REMOVE|LOAD CSV|FOREACH)\b", found.text)


def test_the_guide_lists_every_query() -> None:
    guide = (ROOT / "docs" / "queries.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([a-z-]+)` \|", guide, re.MULTILINE)
    assert sorted(listed) == sorted(NAMES)


def test_an_unknown_query_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no query is called 'page-rank'.*pagerank, pagerank-gds"):
        query("page-rank")
    with pytest.raises(UsageError, match="similar-classes-overall"):
        query("overall")


# Parameters -----------------------------------------------------------------------------------


def test_text_becomes_parameters_by_type() -> None:
    texts = [("neuron", "a=b/c/1"), ("class", "5"), ("limit", "7")]
    assert values(query("strongest-paths"), texts) == {
        "neuron": "a=b/c/1",
        "class": "5",
        "limit": 7,
    }
    assert values(query("select"), [("mass", "1e-1")]) == {"mass": 0.1}
    several = [("classes", "one"), ("classes", '["two", "three, four"]')]
    assert values(query("shared-neurons"), several) == {"classes": ["one", "two", "three, four"]}


@pytest.mark.parametrize(
    ("name", "texts", "message"),
    [
        ("hubs", [("modle", "x")], r"takes no modle\. It takes model, limit \(else 20\)"),
        ("hubs", [("limit", "many")], "limit of the query 'hubs' is 'many'; .* 0 or more"),
        ("hubs", [("limit", "2.5")], "0 or more"),
        ("hubs", [("limit", "-1")], "0 or more"),
        ("hubs", [("limit", "")], "0 or more"),
        ("hubs", [("limit", "1"), ("limit", "2")], "one limit, and was given two"),
        ("select", [("mass", "1.5")], "from 0 to 1"),
        ("select", [("mass", "nan")], "from 0 to 1"),
        ("shared-neurons", [("classes", '["a", 1]')], "a list, each text"),
        ("shared-neurons", [("classes", "[broken")], "a list, each text"),
        ("models", [("model", "x")], "It takes none"),
    ],
)
def test_text_that_is_no_value_is_refused(
    name: str, texts: list[tuple[str, str]], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        values(query(name), texts)


def test_defaults_fill_up_what_is_left_out() -> None:
    full = complete(query("pagerank"), {"class": "x", "iterations": 3})
    assert full == {"class": "x", "damping": None, "iterations": 3}


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("neighbours", {"class": "x"}, r"needs neuron\. It takes neuron, class, limit"),
        ("neighbours", {"class": "x", "nuron": "y"}, "takes no nuron"),
        ("neighbours", {}, "needs neuron and class"),
        ("hubs", {"model": 3}, "it has to be text"),
        ("hubs", {"model": None}, "it has to be text"),
        ("hubs", {"model": "x", "limit": True}, "0 or more"),
        ("hubs", {"model": "x", "limit": 1.0}, "0 or more"),
        ("shared-neurons", {"classes": "x"}, "a list"),
    ],
)
def test_missing_unknown_and_mistyped_parameters_are_refused(
    name: str, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        complete(query(name), given)


# A model in the database ----------------------------------------------------------------------


class Loaded(NamedTuple):
    """An atlas, its key, and the database it was loaded into."""

    atlas: Atlas
    key: str
    driver: neo4j.Driver
    connection: Connection

    def run(self, name: str, /, **parameters: Any) -> list[dict[str, Any]]:
        """The rows, each held to the header: columns, and the types of all values."""
        asked = query(name)
        if "from_class" in parameters:
            parameters["class"] = self.of_class(parameters.pop("from_class"))
        result = run(self.driver, self.connection, asked, parameters)
        assert result.columns == tuple(column.name for column in asked.columns)
        for row in result.rows:
            for value, column in zip(row, asked.columns, strict=True):
                assert column.type.takes(value), (name, column, value)
        json.dumps(result.plain(), allow_nan=False)
        return [dict(zip(result.columns, row, strict=True)) for row in result.rows]

    def of_class(self, index: int) -> str:
        return f"{self.key}/class/{index}"

    def of_neuron(self, name: str) -> str:
        return f"{self.key}/{name}"

    @property
    def neurons(self) -> list[str]:
        """The names of all neurons, by Neuron.index."""
        layers = self.atlas.layers
        return [f"{layer.name}/{channel}" for layer in layers for channel in range(layer.channels)]

    @property
    def place(self) -> dict[str, int]:
        """The key of each neuron -> its Neuron.index."""
        return {self.of_neuron(name): index for index, name in enumerate(self.neurons)}


def loaded(path: Path, connection: Connection) -> Iterator[Loaded]:
    with Atlas.open(path) as atlas, opened(connection) as driver:
        report = load(atlas, connection)
        try:
            yield Loaded(atlas, report.key, driver, connection)
        finally:
            if not report.already:
                unload(report.key, connection)


def told(path: Path, **changes: Any) -> None:
    """Changes what an atlas's description says."""
    header = json.loads((path / "atlas.json").read_text(encoding="utf-8"))
    (path / "atlas.json").write_text(json.dumps(header | changes), encoding="utf-8")


@pytest.fixture(scope="module")
def demo(demo_atlas: Path, connection: Connection) -> Iterator[Loaded]:
    """The demo: 10 classes, 104 neurons."""
    yield from loaded(demo_atlas, connection)


@pytest.fixture(scope="module")
def other(
    demo_atlas: Path, connection: Connection, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Loaded]:
    """The demo without some neurons that it ranks high, under another key."""
    path = tmp_path_factory.mktemp("other") / "other.atlas"
    shutil.copytree(demo_atlas, path, symlinks=True)
    told(path, key="other")
    rerank(path, Ranking(exclude=("conv2/5", "conv3/2*"), mass=0.2), workers=1)
    yield from loaded(path, connection)


HOSTILE = (
    "'}) MATCH (n) DETACH DELETE n //",
    'a "quoted" $class {key: "x"} \\ back\\slash',
    "several\nlines\tand 🦊 ünï\u202eçode",
)


@pytest.fixture
def toy(connection: Connection, tmp_path: Path) -> Iterator[Loaded]:
    """A small made atlas whose names are hostile. Tests may spoil what is loaded of it."""
    classes = [
        ClassEntry(entry.index, name, entry.synset, entry.outputs)
        for entry, name in zip(made.CLASSES, HOSTILE, strict=True)
    ]
    path = made.atlas(tmp_path / "toy", made.images(60), classes=classes, key='it\'s "/class/3" //')
    told(path, ranking=Ranking().describe())
    yield from loaded(path, connection)


def written(model: Loaded, text: Any, **parameters: Any) -> None:
    with write_session(model.driver, model.connection) as session:
        session.run(text, parameters).consume()


# Plans ----------------------------------------------------------------------------------------

GIVEN: dict[str, Any] = {"name": "e", "layer": "conv3", "limit": 5}


def required(asked: Query, key: str) -> dict[str, Any]:
    """Parameters that the query cannot do without, of the demo."""
    known = GIVEN | {
        "model": key,
        "other_model": key,
        "class": f"{key}/class/3",
        "classes": [f"{key}/class/3", f"{key}/class/8"],
        "neuron": f"{key}/conv3/22",
        "image": f"{key}/image/0",
    }
    return {
        parameter.name: known[parameter.name]
        for parameter in asked.parameters
        if parameter.required
    }


def operators(plan: dict[str, Any]) -> Iterator[str]:
    yield f"{plan['operatorType'].partition('@')[0]} {plan['args'].get('Details', '')}"
    for child in plan.get("children") or ():
        yield from operators(child)


@pytest.fixture(scope="module", params=SERVERS)
def anywhere(request: pytest.FixtureRequest, demo_atlas: Path) -> Iterator[Loaded]:
    """The demo on the pinned and on the long-term server."""
    yield from loaded(demo_atlas, request.getfixturevalue(request.param))


@pytest.mark.parametrize("language", ["", "CYPHER 5 ", "CYPHER 25 "])
@pytest.mark.parametrize("name", NAMES)
def test_plans_scan_nothing_and_seek_what_is_named(
    anywhere: Loaded, name: str, language: str
) -> None:
    asked = query(name)
    given = complete(asked, required(asked, anywhere.key))
    with read_session(anywhere.driver, anywhere.connection) as session:
        # The long-term server knows Cypher 5 alone.
        versions = session.run("CALL dbms.components() YIELD versions RETURN versions").value()
        if language == "CYPHER 25 " and not any("25" in each for each in versions):
            language = "CYPHER 5 "
        plan = session.run(f"{language}EXPLAIN {asked.text}", given).consume().plan  # type: ignore[arg-type]
    assert plan is not None
    found = list(operators(plan))
    assert found
    assert not any(operator.startswith("AllNodesScan") for operator in found)
    keyed = [parameter.name for parameter in asked.parameters if parameter.label is not None]
    if any(asked_for.required for asked_for in asked.parameters if asked_for.label is not None):
        assert not any("Scan" in operator for operator in found), found
        # The key of a class, neuron, image or model, or a class's influences.
        seek = re.compile(r"\w+IndexSeek\w* .*(?:key|class) (?:=|IN) \$(\w+)", re.DOTALL)
        sought = {match[1] for operator in found if (match := seek.match(operator))}
        assert sought & set(keyed), found


# Rows beside the atlas ------------------------------------------------------------------------

CLASSES = range(10)


def test_models(demo: Loaded, other: Loaded) -> None:
    rows = {row["model"]: row for row in demo.run("models")}
    info = demo.atlas.info()
    assert rows[demo.key] == {
        "model": demo.key,
        "name": info["name"],
        "loaded": True,
        "edges": "graph",
        "partial": False,
        "dataset": "digits",
        "grouping": "label",
        "images": 899,
        "layers": 4,
        "neurons": 104,
        "classes": 10,
        "mass": 0.075,
        "damping": 0.85,
    }
    assert rows["other"]["mass"] == 0.2


def test_schema(demo: Loaded) -> None:
    rows = demo.run("schema")
    found = {
        (min(row["start"].labels), row["relationship"].type, min(row["end"].labels)) for row in rows
    }
    assert {(kind.start, kind.type, kind.end) for kind in RELATIONSHIPS.values()} <= found


def test_layers(demo: Loaded) -> None:
    edges = demo.atlas.generation.table("edges")
    ends = [edges.column(f"{end}_layer").to_pylist() for end in ("source", "target")]
    pairs = set(zip(*ends, strict=True))
    names = {layer.number: layer.name for layer in demo.atlas.layers}
    assert demo.run("layers", model=demo.key) == [
        {
            "layer": layer.name,
            "index": layer.number,
            "channels": layer.channels,
            "height": layer.height,
            "width": layer.width,
            "feeds": [names[after] for before, after in sorted(pairs) if before == layer.number],
        }
        for layer in demo.atlas.layers
    ]


@pytest.mark.parametrize("text", ["e", "EIGHT", "ne", "", "nothing like it"])
def test_find_class(demo: Loaded, other: Loaded, text: str) -> None:
    rows = demo.run("find-class", name=text, model=demo.key)
    low = text.lower()
    fitting = [record for record in demo.atlas.classes if low in record.name]
    fitting.sort(key=lambda record: (record.name != low, not record.name.startswith(low)))
    assert [(row["class"], row["name"], row["images"], row["neurons"]) for row in rows] == [
        (demo.of_class(record.index), record.name, record.images, record.neurons)
        for record in fitting
    ]
    everywhere = demo.run("find-class", name=text)
    assert [row for row in everywhere if row["model"] == demo.key] == rows
    assert [row["name"] for row in everywhere if row["model"] == "other"] == [
        row["name"] for row in rows
    ]


@pytest.mark.parametrize("index", CLASSES)
def test_attribution_graph(demo: Loaded, index: int) -> None:
    graph = demo.atlas.attribution_graph(index)
    assert demo.run("attribution-graph", from_class=index) == [
        {
            "neuron": demo.of_neuron(neuron.name),
            "layer": neuron.layer,
            "channel": neuron.channel,
            "pagerank": neuron.pagerank,
            "rank": neuron.rank,
            "count": neuron.count,
            "share": neuron.share,
        }
        for neuron in graph.neurons
    ]
    edges = [
        {
            "source": demo.of_neuron(edge.source),
            "target": demo.of_neuron(edge.target),
            "count": edge.count,
            "share": edge.share,
        }
        for edge in graph.edges
    ]
    assert demo.run("attribution-edges", from_class=index) == edges

    picture = demo.run("attribution-picture", from_class=index)
    nodes = {
        node["key"] for row in picture for node in (row["start"], row["end"]) if node is not None
    }
    assert nodes == {demo.of_class(index), *(demo.of_neuron(n.name) for n in graph.neurons)}
    drawn = [
        (row["edge"].type, row["start"]["key"], row["end"]["key"], row["edge"]["count"])
        for row in picture
        if row["edge"] is not None
    ]
    kept = {neuron.name for neuron in graph.neurons}
    votes = [
        ("VOTES_FOR", demo.of_neuron(vote.name), demo.of_class(index), vote.count)
        for vote in demo.atlas.votes(index)
        if vote.name in kept
    ]
    influences = [("INFLUENCES", edge["source"], edge["target"], edge["count"]) for edge in edges]
    assert sorted(drawn) == sorted(influences + votes)


@pytest.mark.parametrize("model", ["demo", "other"])
@pytest.mark.parametrize("mass", [None, 0.001, 0.05, 0.15, 0.5, 0.93, 0.999, 1.0])
def test_select(request: pytest.FixtureRequest, model: str, mass: float | None) -> None:
    here: Loaded = request.getfixturevalue(model)
    chosen = [layer.number for layer in here.atlas.layers]
    for record in here.atlas.classes:
        ranks = here.atlas.generation.of_class("ranks", record.index)
        layer, channel, pagerank = (
            ranks.column(name).to_numpy() for name in ("layer", "channel", "pagerank")
        )
        edges = here.atlas.generation.of_class("edges", record.index)
        at = {pair: n for n, pair in enumerate(zip(layer.tolist(), channel.tolist(), strict=True))}
        ends = [
            np.array(
                [
                    at[pair]
                    for pair in zip(
                        edges.column(f"{end}_layer").to_pylist(),
                        edges.column(end).to_pylist(),
                        strict=True,
                    )
                ]
            )
            for end in ("source", "target")
        ]
        asked = here.atlas.info()["ranking"]["mass"] if mass is None else mass
        wanted = select(pagerank, layer, *ends, mass=asked, layers=chosen)
        rows = here.run("select", from_class=record.index, mass=mass)
        assert [row["rank"] for row in rows] == sorted(wanted.rank[wanted.selected])
        names = {here.of_neuron(n.name) for n in here.atlas.attribution_graph(record.index).neurons}
        assert mass is not None or {row["neuron"] for row in rows} == names
        assert {(row["mass"], row["threshold"]) for row in rows} == {
            (wanted.mass, wanted.threshold)
        }


def test_neurons_and_their_classes(demo: Loaded) -> None:
    for name in demo.neurons[::3]:
        assert demo.run("classes-of-neuron", neuron=demo.of_neuron(name)) == [
            {
                "class": demo.of_class(view.index),
                "index": view.index,
                "name": view.name,
                "pagerank": view.pagerank,
                "rank": view.rank,
                "selected": view.selected,
                "count": view.count,
                "share": view.share,
            }
            for view in demo.atlas.neuron(name).classes
        ]


def test_neighbours(demo: Loaded) -> None:
    inside = {(edge.source, edge.target) for edge in demo.atlas.attribution_graph(8).edges}
    for name in demo.neurons[::3]:
        wanted = demo.atlas.neighbours(name, 8, limit=4)
        assert demo.run("neighbours", neuron=demo.of_neuron(name), from_class=8, limit=4) == [
            {
                "direction": direction,
                "source": demo.of_neuron(edge.source),
                "target": demo.of_neuron(edge.target),
                "count": edge.count,
                "share": edge.share,
                "selected": (edge.source, edge.target) in inside,
            }
            for direction, edges in (("source", wanted.sources), ("target", wanted.targets))
            for edge in edges
        ]


def graph_of(model: Loaded, index: int) -> networkx.DiGraph[str]:
    graph = model.atlas.attribution_graph(index).to_networkx()
    return networkx.relabel_nodes(graph, {name: model.of_neuron(name) for name in graph})


@pytest.mark.parametrize("index", [2, 8])
@pytest.mark.parametrize("hops", [0, 1, 2, 5])
def test_upstream_and_downstream(demo: Loaded, index: int, hops: int) -> None:
    """Beside all ways written out."""
    graph = graph_of(demo, index)
    for start in graph:
        for name, directed in (("downstream", graph), ("upstream", graph.reverse())):
            lengths = networkx.single_source_shortest_path_length(directed, start, cutoff=hops)
            widest = {
                end: max(
                    min(directed.edges[edge]["count"] for edge in pairwise(path))
                    for path in networkx.all_simple_paths(directed, start, end, cutoff=hops)
                )
                for end in lengths
                if end != start
            }
            rows = demo.run(name, from_class=index, neuron=start, hops=hops)
            assert [(row["neuron"], row["hops"], row["width"]) for row in rows] == sorted(
                ((end, lengths[end], width) for end, width in widest.items()),
                key=lambda row: (row[1], -row[2], demo.place[row[0]]),
            )
            for row in rows:
                found = graph.nodes[row["neuron"]]
                assert [row[key] for key in ("layer", "channel", "pagerank", "rank", "count")] == [
                    found[key] for key in ("layer", "channel", "pagerank", "rank", "count")
                ]


@pytest.mark.parametrize("index", [2, 7, 8])
@pytest.mark.parametrize("limit", [1, 4, 1000])
def test_strongest_paths(demo: Loaded, index: int, limit: int) -> None:
    """Beside all paths written out and sorted: the weakest edge first, then the second weakest."""
    graph = graph_of(demo, index)
    votes = {demo.of_neuron(vote.name): vote.count for vote in demo.atlas.votes(index)}
    last = max((data["layer"] for _, data in graph.nodes(data=True)))
    ends = [name for name, data in graph.nodes(data=True) if data["layer"] == last]
    several = 0
    for start in graph:
        paths = []
        for end in ends:
            if end == start:
                continue
            for path in networkx.all_simple_paths(graph, start, end):
                counts = [graph.edges[edge]["count"] for edge in pairwise(path)]
                order = [-count for count in sorted(counts)] + [-(10**12)]
                paths.append((order, [demo.place[name] for name in path], path, counts))
        paths.sort()
        several += len(paths) > 4
        assert demo.run("strongest-paths", from_class=index, neuron=start, limit=limit) == [
            {
                "path": number,
                "width": min(counts),
                "counts": counts,
                "neurons": path,
                "votes": votes.get(path[-1]),
            }
            for number, (_, _, path, counts) in enumerate(paths[:limit], start=1)
        ]
    assert several or index != 8


def test_shared_and_distinct_neurons(demo: Loaded) -> None:
    shared = demo.atlas.compare(3, 8).shared
    keys = [demo.of_class(8), demo.of_class(3)]
    assert shared
    assert demo.run("shared-neurons", classes=keys) == [
        {
            "neuron": demo.of_neuron(neuron.name),
            "layer": neuron.first.layer,
            "channel": neuron.first.channel,
            "classes": keys[::-1],
            "pageranks": [neuron.first.pagerank, neuron.second.pagerank],
            "ranks": [neuron.first.rank, neuron.second.rank],
            "total": neuron.first.pagerank + neuron.second.pagerank,
        }
        for neuron in sorted(shared, key=lambda n: -n.first.pagerank - n.second.pagerank)
    ]
    graphs = {index: demo.atlas.attribution_graph(index).neurons for index in CLASSES}
    having = defaultdict(set)
    for index, neurons in graphs.items():
        for neuron in neurons:
            having[demo.of_neuron(neuron.name)].add(demo.of_class(index))
    all_keys = [demo.of_class(index) for index in CLASSES]
    assert {
        row["neuron"]: set(row["classes"])
        for row in demo.run("shared-neurons", classes=all_keys, least=4)
    } == {name: classes for name, classes in having.items() if len(classes) >= 4}

    ranks = demo.atlas.generation.table("ranks").to_pylist()
    names = {layer.number: layer.name for layer in demo.atlas.layers}
    for index, others in ((8, None), (8, [3, 5]), (2, [8])):
        given = None if others is None else [demo.of_class(other) for other in others]
        against = set(CLASSES) - {index} if others is None else set(others)
        rows = demo.run("distinct-neurons", from_class=index, others=given)
        assert [row["neuron"] for row in rows] == [
            demo.of_neuron(neuron.name)
            for neuron in graphs[index]
            if not having[demo.of_neuron(neuron.name)] & {demo.of_class(o) for o in against}
        ]
        assert rows
        for row in rows:
            nearest = min(
                (rank["rank"], rank["class"])
                for rank in ranks
                if (names[rank["layer"]], rank["channel"]) == (row["layer"], row["channel"])
                and rank["class"] in against
            )
            assert (row["nearest_rank"], row["nearest"]) == (nearest[0], demo.of_class(nearest[1]))


def test_similar_classes(demo: Loaded) -> None:
    for index in CLASSES:
        for layer in (None, *(layer.name for layer in demo.atlas.layers)):
            given: dict[str, Any] = {"from_class": index, "limit": 4}
            name = "similar-classes-overall" if layer is None else "similar-classes"
            rows = demo.run(name, **given, **({} if layer is None else {"layer": layer}))
            assert [(row["index"], row["name"], row["cosine"]) for row in rows] == [
                (similar.index, similar.name, similar.cosine)
                for similar in demo.atlas.similar(index, layer, 4)
            ]


def test_embedding(demo: Loaded, toy: Loaded) -> None:
    for model in (demo, toy):
        for layer in model.atlas.layers:
            rows = model.run("embedding", model=model.key, layer=layer.name)
            assert [(row["class"], row["name"], row["x"], row["y"]) for row in rows] == [
                (model.of_class(point.index), point.name, point.x, point.y)
                for point in model.atlas.embedding(layer.name)
            ]
    assert len(rows) < len(model.run("embedding", model=model.key, layer="mixed/a")) < 3


def test_always_on(demo: Loaded, other: Loaded) -> None:
    for model in (demo, other):
        table = model.atlas.activations().to_pylist()
        for image_share, class_share in ((0.4, 0.5), (0.05, 0.9)):
            classes: dict[str, int] = defaultdict(int)
            shares: dict[str, float] = defaultdict(float)
            for row in table:
                name = f"{row['layer']}/{row['channel']}"
                classes[name] += row["share"] >= image_share
                shares[name] += row["share"] / 10
            wanted = {
                n: (c, pytest.approx(shares[n]))
                for n, c in classes.items()
                if c / 10 >= class_share
            }
            rows = model.run(
                "always-on", model=model.key, image_share=image_share, class_share=class_share
            )
            assert wanted
            assert {row["neuron"]: (row["classes"], row["share"]) for row in rows} == {
                model.of_neuron(name): found for name, found in wanted.items()
            }
            assert [row["share"] for row in rows] == sorted(
                (r["share"] for r in rows), reverse=True
            )
            assert {row["of"] for row in rows} == {10}
            out = {row["neuron"] for row in rows if row["excluded"]}
            assert out == {
                model.of_neuron(name)
                for name in wanted
                if model is other and (name == "conv2/5" or name.startswith("conv3/2"))
            }


def test_confusions_and_what_explains_them(demo: Loaded) -> None:
    wanted = []
    for index in CLASSES:
        found = demo.atlas.confusions(index)
        assert [
            (row["index"], row["name"], row["count"], row["share"])
            for row in demo.run("confusions", from_class=index)
        ] == [(each.index, each.name, each.count, each.share) for each in found]
        wanted += [(-each.count, index, each.index) for each in found if each.index >= 0]
    assert wanted
    rows = demo.run("confusions-explained", model=demo.key, top=2)
    assert [(-row["count"], row["class"], row["other"]) for row in rows] == [
        (count, demo.of_class(first), demo.of_class(second))
        for count, first, second in sorted(wanted)
    ]
    for row, (_, first, second) in zip(rows, sorted(wanted), strict=True):
        both = demo.atlas.compare(first, second)
        assert row["shared"] == len(both.shared)
        either = len(both.shared) + len(both.only_first) + len(both.only_second)
        assert row["overlap"] == len(both.shared) / either
        assert row["neurons"] == [demo.of_neuron(neuron.name) for neuron in both.shared][:2]
        cosines = {each.index: each.cosine for each in demo.atlas.similar(first, limit=10)}
        assert row["cosine"] == cosines[second]


def test_confusions_with_no_class(toy: Loaded) -> None:
    rows = {
        record.index: toy.run("confusions", from_class=record.index) for record in toy.atlas.classes
    }
    assert any(row["class"] is None for found in rows.values() for row in found)
    for index, found in rows.items():
        assert [(row["index"], row["name"], row["count"]) for row in found] == [
            (each.index, each.name, each.count) for each in toy.atlas.confusions(index)
        ]


def test_votes(demo: Loaded) -> None:
    for index in CLASSES:
        kept = {neuron.name for neuron in demo.atlas.attribution_graph(index).neurons}
        assert demo.run("votes", from_class=index, limit=6) == [
            {
                "neuron": demo.of_neuron(vote.name),
                "layer": vote.layer,
                "channel": vote.channel,
                "count": vote.count,
                "share": vote.share,
                "selected": vote.name in kept,
            }
            for vote in demo.atlas.votes(index, limit=6)
        ]


def test_hubs(demo: Loaded) -> None:
    having: dict[str, list[tuple[int, int, float]]] = defaultdict(list)
    for index in CLASSES:
        for neuron in demo.atlas.attribution_graph(index).neurons:
            having[neuron.name].append((neuron.rank, index, neuron.pagerank))
    wanted = [
        (demo.of_neuron(name), len(found), sum(each[2] for each in found), *min(found)[:2])
        for name, found in having.items()
    ]
    wanted.sort(key=lambda row: (-row[1], -row[2]))
    rows = demo.run("hubs", model=demo.key, limit=7)
    assert [
        (row["neuron"], row["classes"], row["pagerank"], row["highest_rank"], row["highest"])
        for row in rows
    ] == [
        (key, classes, pytest.approx(pagerank), rank, demo.of_class(index))
        for key, classes, pagerank, rank, index in wanted[:7]
    ]
    assert [row["share"] for row in rows] == [row["classes"] / 10 for row in rows]


def test_unusual_edges(demo: Loaded) -> None:
    edges: dict[int, dict[tuple[str, str], float]] = {}
    names = {layer.number: layer.name for layer in demo.atlas.layers}
    for index in CLASSES:
        images = demo.atlas.find(index).images
        edges[index] = {
            (
                f"{demo.key}/{names[row['source_layer']]}/{row['source']}",
                f"{demo.key}/{names[row['target_layer']]}/{row['target']}",
            ): row["count"] / images
            for row in demo.atlas.generation.of_class("edges", index).to_pylist()
        }
    for index in CLASSES:
        near = [similar.index for similar in demo.atlas.similar(index, limit=3)]
        wanted = {}
        for edge in demo.atlas.attribution_graph(index).edges:
            ends = demo.of_neuron(edge.source), demo.of_neuron(edge.target)
            mean = sum(edges[other].get(ends, 0) for other in near) / 3
            lacking = sum(ends not in edges[other] for other in near)
            wanted[ends] = (edge.count, edge.share, pytest.approx(mean), lacking)
        rows = demo.run("unusual-edges", from_class=index, similar=3, limit=1000)
        assert {
            (row["source"], row["target"]): (
                row["count"],
                row["share"],
                row["elsewhere"],
                row["lacking"],
            )
            for row in rows
        } == wanted
        for row in rows:
            assert row["difference"] == row["share"] - row["elsewhere"]
            assert row["of"] == 3
        sizes = [abs(row["difference"]) for row in rows]
        assert sizes == sorted(sizes, reverse=True)


def test_compare_models(demo: Loaded, other: Loaded) -> None:
    rows = demo.run("compare-models", model=demo.key, other_model="other")
    assert {row["class"] for row in rows} == {demo.of_class(index) for index in CLASSES}
    for row in rows:
        index = int(row["class"].rpartition("/")[2])
        assert row["other"] == f"other/class/{index}"
        first = {n.name: n.rank for n in demo.atlas.attribution_graph(index).neurons}
        second = {n.name: n.rank for n in other.atlas.attribution_graph(index).neurons}
        both = first.keys() & second.keys()
        assert (row["neurons"], row["other_neurons"], row["shared"]) == (
            len(first),
            len(second),
            len(both),
        )
        assert row["overlap"] == len(both) / len(first.keys() | second.keys())
        moved = [abs(first[name] - second[name]) for name in both]
        assert row["rank_change"] == (pytest.approx(sum(moved) / len(moved)) if moved else None)
        assert row["top1"] == demo.atlas.find(index).top1 == row["other_top1"]
    assert [row["overlap"] for row in rows] == sorted(row["overlap"] for row in rows)
    assert any(0 < row["overlap"] < 1 for row in rows)


def test_examples_and_their_neurons(demo: Loaded) -> None:
    of_image = defaultdict(list)
    for place, name in enumerate(demo.neurons):
        examples = demo.atlas.examples(name)
        for each in examples:
            of_image[each.image].append((each.rank, place, name, each.activation))
        if place % 5:
            continue
        assert demo.run("examples", neuron=demo.of_neuron(name)) == [
            {
                "rank": each.rank,
                "image": f"{demo.key}/image/{each.image}",
                "path": each.path,
                "activation": each.activation,
                "row": each.row,
                "column": each.column,
            }
            for each in examples
        ]
        assert demo.run("examples", neuron=demo.of_neuron(name), from_class=3) == []
    for image, found in list(of_image.items())[::20]:
        rows = demo.run("neurons-of-image", image=f"{demo.key}/image/{image}", limit=1000)
        assert [(row["rank"], row["neuron"], row["activation"]) for row in rows] == [
            (rank, demo.of_neuron(name), activation) for rank, _, name, activation in sorted(found)
        ]


# What is refused ------------------------------------------------------------------------------


def test_the_server_refuses_to_write_for_a_query(demo: Loaded) -> None:
    writing = replace(
        query("layers"),
        text="MATCH (m:Model {key: $model}) SET m.spoilt = true RETURN m.key AS layer",
    )
    with pytest.raises(DatabaseError, match="refused to write in a session that only reads"):
        run(demo.driver, demo.connection, writing, {"model": demo.key})
    with read_session(demo.driver, demo.connection) as session:
        spoilt = session.run("MATCH (m:Model {key: $key}) RETURN m.spoilt", key=demo.key)
        assert spoilt.single(strict=True).value() is None


def test_hostile_names_are_only_values(toy: Loaded) -> None:
    for index, name in enumerate(HOSTILE):
        (row,) = toy.run("find-class", name=name, model=toy.key)
        assert row["name"] == name
        assert row["class"] == toy.of_class(made.CLASSES[index].index)
    neurons = toy.run("attribution-graph", from_class=0)
    assert [row["neuron"] for row in neurons] == [
        toy.of_neuron(neuron.name) for neuron in toy.atlas.attribution_graph(0).neurons
    ]
    assert toy.run("neighbours", neuron=neurons[0]["neuron"], from_class=0)
    for text in HOSTILE:
        with pytest.raises(DatabaseError, match="has no class"):
            toy.run("attribution-graph", **{"class": text})
    with read_session(toy.driver, toy.connection) as session:
        count = session.run(
            "MATCH (:Model {key: $key})-[:HAS_CLASS]->(c) RETURN count(c)", key=toy.key
        )
        assert count.single(strict=True).value() == 3


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("hubs", {"model": "not there"}, "has no model 'not there'.*query models"),
        ("compare-models", {"other_model": "not there"}, "has no model 'not there'"),
        ("pagerank", {"class": "{key}/class/77"}, "has no class '.*/class/77'.*find-class"),
        ("pagerank", {"class": "three"}, "has no class 'three'"),
        ("shared-neurons", {"classes": ["{key}/class/3", "x/class/3"]}, "has no class 'x/class/3'"),
        ("classes-of-neuron", {"neuron": "{key}/conv3/99"}, "has no neuron '.*/conv3/99'"),
        ("neurons-of-image", {"image": "{key}/image/-1"}, "has no image"),
    ],
)
def test_what_is_not_there_is_named(
    demo: Loaded, name: str, given: dict[str, Any], message: str
) -> None:
    asked = query(name)
    filled = json.loads(json.dumps(given).replace("{key}", demo.key))
    with pytest.raises(DatabaseError, match=message):
        run(demo.driver, demo.connection, asked, required(asked, demo.key) | filled)


def test_keys_of_different_models_are_refused(demo: Loaded, other: Loaded) -> None:
    with pytest.raises(UsageError, match=r"'other/conv3/1' and .* are of different models"):
        demo.run("neighbours", from_class=3, neuron="other/conv3/1")
    with pytest.raises(UsageError, match="of different models"):
        demo.run("shared-neurons", classes=[demo.of_class(3), other.of_class(3)])


def test_a_model_that_is_not_whole_is_refused(toy: Loaded) -> None:
    written(toy, "MATCH (m:Model {key: $key}) SET m.loaded = false", key=toy.key)
    for name, given in (
        ("hubs", {"model": toy.key}),
        ("attribution-graph", {"class": toy.of_class(0)}),
        # A class that is not loaded yet.
        ("attribution-graph", {"class": toy.of_class(99)}),
        ("classes-of-neuron", {"neuron": toy.of_neuron("mixed/a/1")}),
    ):
        with pytest.raises(DatabaseError, match=r"only in part.*summit-graph load"):
            toy.run(name, **given)
    assert [row["loaded"] for row in toy.run("models") if row["model"] == toy.key] == [False]
    assert toy.run("find-class", name="") == [
        row for row in toy.run("find-class", name="") if row["model"] != toy.key
    ]


class Meddling(Query):
    """A query before which the model is changed, at the last moment."""

    model: Loaded

    @property
    def text(self) -> str:  # type: ignore[override]
        written(
            self.model, "MATCH (m:Model {key: $key}) SET m.fingerprint = 'x'", key=self.model.key
        )
        return query("layers").text


def test_rows_of_a_model_that_changes_meanwhile_do_not_get_out(toy: Loaded) -> None:
    asked = object.__new__(Meddling)
    for name in ("name", "parameters", "columns", "needs"):
        object.__setattr__(asked, name, getattr(query("layers"), name))
    object.__setattr__(asked, "model", toy)
    with pytest.raises(DatabaseError, match="loaded anew or unloaded while the query ran"):
        run(toy.driver, toy.connection, asked, {"model": toy.key})


def test_what_a_model_lacks_is_said(toy: Loaded) -> None:
    key = toy.key
    load(toy.atlas, toy.connection, edges="attribution", replace=True)
    needing = {name for name in NAMES if "edges" in query(name).needs}
    assert needing == {"neighbours", "pagerank", "pagerank-gds", "select", "unusual-edges"}
    parameters = {"class": toy.of_class(0), "neuron": toy.of_neuron("stem/0")}
    for name in needing:
        given = {p.name: parameters[p.name] for p in query(name).parameters if p.required}
        with pytest.raises(DatabaseError, match=r"all edges of every class's graph.*--edges graph"):
            toy.run(name, **given)
    edge = toy.run("attribution-edges", from_class=0)[0]
    fed = toy.run("upstream", from_class=0, neuron=edge["target"])
    assert edge["source"] in {row["neuron"] for row in fed}

    written(toy, "MATCH (m:Model {key: $key}) SET m.partial = true, m.edges = 'graph'", key=key)
    parameters |= {"model": key, "image": f"{key}/image/0", "layer": "stem"}
    for name in NAMES:
        given = {p.name: parameters.get(p.name, "") for p in query(name).parameters if p.required}
        if "counts" in query(name).needs:
            with pytest.raises(DatabaseError, match="imported from published attribution graphs"):
                toy.run(name, **given)
    assert toy.run("neighbours", from_class=0, neuron=edge["source"])


def test_without_a_fitting_graph_data_science_the_other_query_is_named(
    lts_connection: Connection, demo_atlas: Path
) -> None:
    for model in loaded(demo_atlas, lts_connection):
        with pytest.raises(DatabaseError, match=r"needs Graph Data Science 2\.26.*`pagerank`"):
            model.run("pagerank-gds", from_class=3)


# Plain values ---------------------------------------------------------------------------------


def test_plain_values_keep_what_a_graph_says(demo: Loaded) -> None:
    result = run(
        demo.driver, demo.connection, query("attribution-picture"), {"class": demo.of_class(3)}
    )
    plain = result.plain()
    assert len(plain) == len(result.rows)
    row = next(n for n, row in enumerate(result.rows) if row[1] is not None)
    start, edge, end = plain[row]
    assert (edge["start"], edge["end"]) == (start["id"], end["id"])
    assert edge["type"] == result.rows[row][1].type
    assert edge["properties"] == dict(result.rows[row][1])
    assert start["labels"] == ["Neuron"]
    assert start["properties"]["key"] == result.rows[row][0]["key"]
    path = replace(
        query("layers"),
        text="MATCH p = (:Model {key: $model})-[:HAS_LAYER]->(:Layer) RETURN {p: [p]} AS layer",
    )
    found = run(demo.driver, demo.connection, path, {"model": demo.key}).plain()
    assert len(found) == 4
    (nodes, edges) = found[0][0]["p"][0]["nodes"], found[0][0]["p"][0]["relationships"]
    assert [node["labels"] for node in nodes] == [["Model"], ["Layer"]]
    assert edges[0]["start"] == nodes[0]["id"]


# The style file and the Bloom perspective ------------------------------------------------------


def test_the_style_file_knows_the_graph() -> None:
    text = (queries.folder() / "summit-graph.grass").read_text(encoding="utf-8")
    blocks = re.findall(
        r"^(node|relationship)(?:\.(\w+))? \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL
    )
    assert (
        re.sub(r"^(node|relationship)(?:\.\w+)? \{\n.*?^\}\n?", "", text, flags=re.M | re.S).strip()
        == ""
    )
    assert {name for kind, name, _ in blocks if kind == "node"} == {"", *NODES}
    for kind, name, body in blocks:
        lines = re.findall(r"^  ([a-z-]+): (.+);$", body, re.MULTILINE)
        assert len(lines) == len(body.strip().splitlines())
        style = dict(lines)
        if name:
            kinds: Any = NODES if kind == "node" else RELATIONSHIPS
            for shown in re.findall(r"\{(\w+)\}", style.get("caption", "")):
                assert shown in kinds[name].properties.names


PERSPECTIVE = "summit-graph.bloom.json"


def test_the_perspective_knows_the_graph() -> None:
    perspective = json.loads((queries.folder() / PERSPECTIVE).read_text(encoding="utf-8"))
    assert set(perspective["labels"]) == set(NODES)
    for label, properties in perspective["labels"].items():
        assert [each["propertyKey"] for each in properties] == list(NODES[label].properties.names)
    categories = {category["name"]: category for category in perspective["categories"]}
    assert set(categories) == set(NODES)
    for name, category in categories.items():
        assert category["labels"] == [name]
        assert category["icon"] == "no-icon"
        shown = {caption["key"] for caption in category["captions"]}
        assert shown <= {*NODES[name].properties.names, name}
        assert {each["name"] for each in category["properties"]} == set(
            NODES[name].properties.names
        )
    numbers = [category["id"] for category in categories.values()]
    assert len(set(numbers)) == len(numbers)
    types = {each["name"]: each for each in perspective["relationshipTypes"]}
    assert set(types) == set(RELATIONSHIPS)
    for name, each in types.items():
        assert each["size"] > 0
        assert {p["propertyKey"] for p in each["properties"]} == set(
            RELATIONSHIPS[name].properties.names
        )
        for rule in each["styleRules"]:
            assert rule["basedOn"].rpartition("_")[0] in RELATIONSHIPS[name].properties.names
    metadata = perspective["metadata"]
    assert {
        (each["source"], each["relationshipType"], each["target"])
        for each in metadata["pathSegments"]
    } == {(kind.start, kind.type, kind.end) for kind in RELATIONSHIPS.values()}
    assert {
        (each["label"], *(found["key"] for found in each["propertyKeys"]))
        for each in metadata["indexes"]
    } == {
        *((label, "key") for label in NODES),
        ("Class", "name"),
        ("Image", "path"),
    }


def test_the_searches_of_the_perspective_are_queries(demo: Loaded) -> None:
    perspective = json.loads((queries.folder() / PERSPECTIVE).read_text(encoding="utf-8"))
    templates = perspective["templates"]
    assert any(template["text"].startswith("attribution graph of ") for template in templates)
    values_of = {
        "class": "three",
        "other": "eight",
        "model": demo.key,
        "neuron": demo.of_neuron("conv3/22"),
    }
    with read_session(demo.driver, demo.connection) as session:
        for template in templates:
            asked = {parameter["name"] for parameter in template["params"]}
            assert asked == set(re.findall(r"\$\w+", template["cypher"]))
            assert asked == set(re.findall(r"\$\w+", template["text"]))
            for name in asked:
                suggested = next(p for p in template["params"] if p["name"] == name)
                label, property_ = suggested["suggestionLabel"], suggested["suggestionProp"]
                assert property_ in NODES[label].properties.names
            given = {name.removeprefix("$"): values_of[name.removeprefix("$")] for name in asked}
            plan = session.run(f"EXPLAIN {template['cypher']}", given).consume().plan
            found = list(operators(plan))
            assert not any("AllNodesScan" in operator for operator in found)
            assert any("Seek" in operator for operator in found), found
            assert session.run(template["cypher"], given).peek() is not None, template["text"]
