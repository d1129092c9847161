from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import asdict, replace

import networkx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from summit_graph.atlas.export import FORMATS, export
from summit_graph.atlas.interface import (
    AttributionGraph,
    ClassRecord,
    EdgeRecord,
    NeuronRecord,
)
from summit_graph.errors import UsageError

RECORD = ClassRecord(
    7, "white wolf", "n2", 50, 0.9, None, (0,) * 9 + (50,), 3, 1, 0.08, None, True, ("stem",)
)


def made_graph(name: str, layer: str = "mixed") -> AttributionGraph:
    neurons = tuple(
        NeuronRecord(f"{layer}{at}/{at}", f"{layer}{at}", at, 0.5 / (at + 1), at + 1, 9, 0.18)
        for at in range(3)
    )
    edges = (EdgeRecord(neurons[0].name, neurons[1].name, 4, 0.08),)
    return AttributionGraph(replace(RECORD, name=name), neurons, edges)


def spelled(text: str) -> str:
    """What a reader of XML sees: signs that XML has no way to write are spelled out."""
    return "".join(
        sign
        if sign in "\t\n\r"
        or (sign >= " " and not re.match("[\x7f-\x84\x86-\x9f\ufffe\uffff]", sign))
        else sign.encode("unicode_escape").decode()
        for sign in text
    )


NAMES = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("\"'\\,;<>&\n\r\t\x00\x07\x1b🐺]"),
    max_size=12,
)


@settings(deadline=None)
@given(NAMES, NAMES)
def test_json_comes_back(name: str, layer: str) -> None:
    graph = made_graph(name, layer)
    found = json.loads(export(graph, "json"))
    record = asdict(graph.record)
    assert found["class"] == {**record, "probability": [0] * 9 + [50], "unconnected": ["stem"]}
    assert found["neurons"] == [asdict(neuron) for neuron in graph.neurons]
    assert found["edges"] == [asdict(edge) for edge in graph.edges]


@settings(deadline=None)
@given(NAMES, NAMES)
def test_csv_comes_back(name: str, layer: str) -> None:
    graph = made_graph(name, layer)
    rows = list(csv.DictReader(io.StringIO(export(graph, "csv"), newline="")))
    first, second, third = graph.neurons
    assert [(row["class"], row["source"], row["target"], row["count"]) for row in rows] == [
        (name, first.name, second.name, "4"),
        (name, third.name, "", ""),
    ]
    assert rows[0]["target_layer"] == second.layer
    assert float(rows[0]["source_pagerank"]) == first.pagerank
    assert rows[1]["source_rank"] == "3"


@settings(deadline=None)
@given(NAMES, NAMES)
def test_graphml_comes_back(name: str, layer: str) -> None:
    graph = made_graph(name, layer)
    found = networkx.read_graphml(io.BytesIO(export(graph, "graphml").encode()))
    assert_same(found, graph)
    assert found.graph["name"] == spelled(name)
    assert found.graph["images"] == 50
    assert "top5" not in found.graph


@settings(deadline=None)
@given(NAMES, NAMES)
def test_gexf_comes_back(name: str, layer: str) -> None:
    graph = made_graph(name, layer)
    found = networkx.read_gexf(io.BytesIO(export(graph, "gexf").encode()))
    assert_same(found, graph)
    assert found.nodes[spelled(graph.neurons[0].name)]["label"] == spelled(graph.neurons[0].name)


def assert_same(found: networkx.DiGraph, graph: AttributionGraph) -> None:
    assert found.is_directed()
    assert list(found) == [spelled(neuron.name) for neuron in graph.neurons]
    for neuron in graph.neurons:
        node = found.nodes[spelled(neuron.name)]
        assert node["layer"] == spelled(neuron.layer)
        assert (node["channel"], node["rank"], node["count"]) == (neuron.channel, neuron.rank, 9)
        assert node["pagerank"] == neuron.pagerank
    (edge,) = graph.edges
    values = found.edges[spelled(edge.source), spelled(edge.target)]
    assert (values["count"], values["share"]) == (4, 0.08)


TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|->|[A-Za-z0-9_]+|[{}\[\];=,]|\s+', re.DOTALL)


def unquoted(token: str) -> str:
    """The text that Graphviz draws for a quoted label."""
    return re.sub(
        r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], token[1:-1], flags=re.DOTALL
    )


@settings(deadline=None)
@given(NAMES, NAMES)
def test_dot_is_made_of_its_tokens(name: str, layer: str) -> None:
    graph = made_graph(name, layer)
    text = export(graph, "dot")
    tokens = TOKEN.findall(text)
    assert "".join(tokens) == text
    words = [token for token in tokens if not token.isspace()]
    assert words[0] == "digraph"
    assert words.count("{") == words.count("}")
    labels = [unquoted(words[at + 2]) for at, word in enumerate(words) if word == "label"]
    expected = [spelled(each.name).replace("\r", "\\r") for each in (graph.record, *graph.neurons)]
    assert labels == expected
    assert sum(word == "->" for word in words) == 1


def test_a_pencil_case() -> None:
    lines = export(made_graph("wolf"), "dot").splitlines()
    assert lines[1] == '  label="wolf";'
    assert "  {rank=same; n0;}" in lines
    assert '  n0 -> n1 [count="4", share="0.08"];' in lines


@pytest.mark.parametrize("name", list(FORMATS))
def test_a_graph_without_neurons_is_written(name: str) -> None:
    empty = AttributionGraph(RECORD, (), ())
    text = export(empty, name)
    if name == "graphml":
        assert len(networkx.read_graphml(io.BytesIO(text.encode()))) == 0
    if name == "gexf":
        assert len(networkx.read_gexf(io.BytesIO(text.encode()))) == 0
    if name == "csv":
        assert len(text.splitlines()) == 1
    assert export(empty, name) == text


@pytest.mark.parametrize("name", list(FORMATS))
def test_what_is_not_known_is_left_out_and_is_not_0(name: str) -> None:
    known = made_graph("wolf")
    graph = AttributionGraph(
        replace(known.record, images=None, top1=None, probability=None, mass=None, converged=None),
        tuple(replace(neuron, share=None) for neuron in known.neurons),
        tuple(replace(edge, share=None) for edge in known.edges),
    )
    text = export(graph, name)
    assert "None" not in text
    if name == "json":
        found = json.loads(text)
        assert found["class"]["images"] is None
        assert [entry["share"] for entry in found["neurons"] + found["edges"]] == [None] * 4
    if name == "csv":
        row = next(csv.DictReader(io.StringIO(text, newline="")))
        assert [row[key] for key in ("source_share", "target_share", "share")] == [""] * 3
        assert (row["source_count"], row["count"]) == ("9", "4")
    if name in ("graphml", "gexf"):
        read = networkx.read_graphml if name == "graphml" else networkx.read_gexf
        read_back = read(io.BytesIO(text.encode()))
        assert "images" not in read_back.graph
        for _, values in read_back.nodes(data=True):
            assert values["count"] == 9
            assert "share" not in values
        for _, _, values in read_back.edges(data=True):
            assert values["count"] == 4
            assert "share" not in values
    if name == "dot":
        assert "share" not in text
        assert '  n0 -> n1 [count="4"];' in text


def test_no_such_format() -> None:
    with pytest.raises(UsageError, match=r"no format 'xls'. Choose one of json, csv"):
        export(made_graph("x"), "xls")
