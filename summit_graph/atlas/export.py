r"""Writes an attribution graph as text that other programs read.

- `json`: an object with `class`, `neurons`, `edges`, the fields of the records.
- `csv`: a row for each edge, with the columns of its two neurons beside it; and a row for each
  neuron without an edge, whose columns from `target` on are empty.
- `graphml`, `gexf`: XML 1.0, nodes named as neurons, directed from the earlier layer to the later.
- `dot`: a Graphviz digraph, one rank for each layer, the earlier at the bottom.

What is not known is null in `json`, empty in `csv`, and left out in the others.

The text of one graph is always the same. XML has no way to write most control characters, and in
`dot` they would break the picture: there they are spelled out, as in `\x07`.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from summit_graph.atlas.interface import AttributionGraph, NeuronRecord, summary
from summit_graph.errors import UsageError

_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_XML_TYPES = {"int": "int", "float": "double", "str": "string"}
_GEXF_TYPES = {"int": "integer", "float": "double", "str": "string"}


def export(graph: AttributionGraph, form: str) -> str:
    """The text of a graph in one of `FORMATS`. Raises: UsageError if there is no such format."""
    try:
        return FORMATS[form](graph)
    except KeyError as error:
        raise UsageError(
            f"there is no format {form!r}. Choose one of {', '.join(FORMATS)}."
        ) from error


def _json(graph: AttributionGraph) -> str:
    return json.dumps(summary(graph), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _csv(graph: AttributionGraph) -> str:
    columns = [field.name for field in fields(NeuronRecord) if field.name != "name"]
    text = io.StringIO()
    writer = csv.writer(text)
    head = ["class"]
    for side in ("source", "target"):
        head += [side, *(f"{side}_{column}" for column in columns)]
    writer.writerow([*head, "count", "share"])
    neurons = {neuron.name: neuron for neuron in graph.neurons}
    touched = set()
    for edge in graph.edges:
        touched |= {edge.source, edge.target}
        row: list[Any] = [graph.record.name]
        for name in (edge.source, edge.target):
            row += [name, *(getattr(neurons[name], column) for column in columns)]
        writer.writerow([*row, edge.count, edge.share])
    for neuron in graph.neurons:
        if neuron.name not in touched:
            row = [neuron.name, *(getattr(neuron, column) for column in columns)]
            writer.writerow([graph.record.name, *row, *[""] * (len(columns) + 3)])
    return text.getvalue()


def _graphml(graph: AttributionGraph) -> str:
    keys: dict[tuple[str, str], str] = {}
    heads: list[str] = []

    def declared(domain: str, values: Mapping[str, Any]) -> Iterable[str]:
        for name, value in values.items():
            if value is None:
                continue
            if (domain, name) not in keys:
                keys[domain, name] = f"d{len(keys)}"
                kind = _XML_TYPES[type(value).__name__]
                heads.append(
                    f'  <key id="{keys[domain, name]}" for="{domain}" attr.name="{name}" '
                    f'attr.type="{kind}"/>'
                )
            yield f'<data key="{keys[domain, name]}">{_text(value)}</data>'

    body = [f"    {line}" for line in declared("graph", _class_values(graph))]
    for neuron in graph.neurons:
        data = "".join(declared("node", _values(neuron, "name")))
        body.append(f"    <node id={_attribute(neuron.name)}>{data}</node>")
    for edge in graph.edges:
        data = "".join(declared("edge", {"count": edge.count, "share": edge.share}))
        ends = f"source={_attribute(edge.source)} target={_attribute(edge.target)}"
        body.append(f"    <edge {ends}>{data}</edge>")
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">',
            *heads,
            '  <graph edgedefault="directed">',
            *body,
            "  </graph>",
            "</graphml>\n",
        ]
    )


def _gexf(graph: AttributionGraph) -> str:
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<gexf xmlns="http://www.gexf.net/1.2draft" version="1.2">',
        "  <meta>",
        "    <creator>summit-graph</creator>",
        f"    <description>{_text(graph.record.name)}</description>",
        "  </meta>",
        '  <graph defaultedgetype="directed" mode="static">',
    ]
    for domain, example in (
        ("node", {**_values(graph.neurons[0], "name"), "share": 0.0} if graph.neurons else {}),
        ("edge", {"count": 0, "share": 0.0}),
    ):
        lines.append(f'    <attributes class="{domain}" mode="static">')
        for name, value in example.items():
            kind = _GEXF_TYPES[type(value).__name__]
            lines.append(f'      <attribute id="{domain}-{name}" title="{name}" type="{kind}"/>')
        lines.append("    </attributes>")
    lines.append("    <nodes>")
    for neuron in graph.neurons:
        name = _attribute(neuron.name)
        data = _attvalues("node", _values(neuron, "name"))
        lines.append(f"      <node id={name} label={name}>{data}</node>")
    lines += ["    </nodes>", "    <edges>"]
    for number, edge in enumerate(graph.edges):
        ends = f"source={_attribute(edge.source)} target={_attribute(edge.target)}"
        data = _attvalues("edge", {"count": edge.count, "share": edge.share})
        lines.append(f'      <edge id="{number}" {ends} weight="{edge.count}">{data}</edge>')
    return "\n".join([*lines, "    </edges>", "  </graph>", "</gexf>\n"])


def _dot(graph: AttributionGraph) -> str:
    ids = {neuron.name: f"n{number}" for number, neuron in enumerate(graph.neurons)}
    lines = [
        "digraph {",
        f"  label={_quoted(graph.record.name)};",
        "  rankdir=BT;",
        "  node [shape=box];",
    ]
    layers: dict[str, list[str]] = {}
    for neuron in graph.neurons:
        values = ", ".join(
            f"{name}={_quoted(value)}"
            for name, value in _values(neuron, "name").items()
            if value is not None
        )
        lines.append(f"  {ids[neuron.name]} [label={_quoted(neuron.name)}, {values}];")
        layers.setdefault(neuron.layer, []).append(ids[neuron.name])
    lines += [f"  {{rank=same; {'; '.join(names)};}}" for names in layers.values()]
    for edge in graph.edges:
        values = f"count={_quoted(edge.count)}"
        if edge.share is not None:
            values += f", share={_quoted(edge.share)}"
        lines.append(f"  {ids[edge.source]} -> {ids[edge.target]} [{values}];")
    return "\n".join([*lines, "}\n"])


FORMATS: Mapping[str, Callable[[AttributionGraph], str]] = {
    "json": _json,
    "csv": _csv,
    "graphml": _graphml,
    "gexf": _gexf,
    "dot": _dot,
}
"""The formats, by name."""


def _values(record: NeuronRecord, left_out: str) -> dict[str, Any]:
    return {name: value for name, value in asdict(record).items() if name != left_out}


def _class_values(graph: AttributionGraph) -> dict[str, Any]:
    return {
        name: value
        for name, value in asdict(graph.record).items()
        if isinstance(value, int | float | str) and not isinstance(value, bool)
    }


def _spelled(value: Any) -> str:
    return _FORBIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), str(value))


def _text(value: Any) -> str:
    return escape(_spelled(value), {"\r": "&#13;"})


def _attribute(value: Any) -> str:
    return quoteattr(_spelled(value))


def _attvalues(domain: str, values: Mapping[str, Any]) -> str:
    inside = "".join(
        f'<attvalue for="{domain}-{name}" value={_attribute(value)}/>'
        for name, value in values.items()
        if value is not None
    )
    return f"<attvalues>{inside}</attvalues>"


def _quoted(value: Any) -> str:
    text = _spelled(value).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + text.replace("\r", "\\\\r").replace("\n", "\\n") + '"'
