"""The graph that an atlas becomes: kinds of nodes and relationships, keys, constraints, indexes.

1. A node has one label and a `key`, unique among the nodes of that label. A model's own key names
   its atlas; the keys of its other nodes start with it (`layer_key` and the like), so that several
   models stand side by side.
2. A relationship has one type, and one label at each end. Its ends are found by their keys.
3. A property that is null, or an empty list, is not stored.

What the numbers mean: docs/method.md, sections 2 to 6. Labels, types and names of properties are
the constants of this module alone; everything else reaches Neo4j as a parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

EDGES = ("graph", "attribution")
"""What of the influences is loaded: those of the whole graph of every class, or only those between
neurons of its attribution graph."""


@dataclass(frozen=True)
class Node:
    """A kind of node. properties: name and type of each; the first is `key`."""

    label: str
    properties: pa.Schema


@dataclass(frozen=True)
class Relationship:
    """A kind of relationship. start, end: labels of its ends. properties: name and type of each."""

    type: str
    start: str
    end: str
    properties: pa.Schema

    @property
    def rows(self) -> pa.Schema:
        """The columns of its rows: the numbers of the two ends, then its properties."""
        ends = [pa.field(START, pa.int64()), pa.field(END, pa.int64())]
        return pa.schema([*ends, *self.properties])


START = "start node"
END = "end node"
"""Columns of a relationship's row that are no properties of it; no property has a blank in it."""


def _properties(**columns: pa.DataType) -> pa.Schema:
    return pa.schema(list(columns.items()))


_TEXT, _WHOLE, _REAL, _FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()

NODES: Mapping[str, Node] = {
    node.label: node
    for node in (
        Node(
            "Model",
            _properties(
                key=_TEXT,
                name=_TEXT,
                spec=_TEXT,
                weights=_TEXT,
                dataset=_TEXT,
                grouping=_TEXT,
                images=_WHOLE,
                mass=_REAL,
                damping=_REAL,
                edges=_TEXT,
                embedding=_FLAG,
                identity=_TEXT,
                fingerprint=_TEXT,
                partial=_FLAG,
                summit_graph=_TEXT,
                loaded=_FLAG,
            ),
        ),
        Node(
            "Layer",
            _properties(
                key=_TEXT, name=_TEXT, index=_WHOLE, channels=_WHOLE, height=_WHOLE, width=_WHOLE
            ),
        ),
        Node(
            "Neuron",
            _properties(
                key=_TEXT,
                name=_TEXT,
                index=_WHOLE,
                layer=_TEXT,
                channel=_WHOLE,
                excluded=_FLAG,
                always_active=_FLAG,
            ),
        ),
        Node(
            "Class",
            _properties(
                key=_TEXT,
                index=_WHOLE,
                name=_TEXT,
                synset=_TEXT,
                images=_WHOLE,
                top1=_REAL,
                top5=_REAL,
                probability=pa.list_(_WHOLE),
                mass=_REAL,
                threshold=_REAL,
                neurons=_WHOLE,
                edges=_WHOLE,
                converged=_FLAG,
                unconnected=pa.list_(_TEXT),
                confused_with_none=_WHOLE,
            ),
        ),
        Node("Image", _properties(key=_TEXT, index=_WHOLE, path=_TEXT)),
    )
}
"""Label -> kind of node, in the order of loading. `Model` is one node, and the first."""

RELATIONSHIPS: Mapping[str, Relationship] = {
    relationship.type: relationship
    for relationship in (
        Relationship("HAS_LAYER", "Model", "Layer", _properties()),
        Relationship("HAS_NEURON", "Layer", "Neuron", _properties()),
        Relationship("HAS_CLASS", "Model", "Class", _properties()),
        Relationship("FEEDS", "Layer", "Layer", _properties()),
        Relationship("ACTIVATES", "Class", "Neuron", _properties(count=_WHOLE, share=_REAL)),
        Relationship("RANKS", "Class", "Neuron", _properties(pagerank=_REAL, rank=_WHOLE)),
        Relationship(
            "ATTRIBUTES", "Class", "Neuron", _properties(pagerank=_REAL, rank=_WHOLE, count=_WHOLE)
        ),
        Relationship(
            "INFLUENCES",
            "Neuron",
            "Neuron",
            _properties(**{"class": _TEXT}, count=_WHOLE, share=_REAL, selected=_FLAG),
        ),
        Relationship("VOTES_FOR", "Neuron", "Class", _properties(count=_WHOLE, share=_REAL)),
        Relationship("SIMILAR_TO", "Class", "Class", _properties(cosine=_REAL, layer=_TEXT)),
        Relationship("PLACED_IN", "Class", "Layer", _properties(x=_REAL, y=_REAL)),
        Relationship("CONFUSED_WITH", "Class", "Class", _properties(count=_WHOLE, share=_REAL)),
        Relationship(
            "EXAMPLE",
            "Neuron",
            "Image",
            _properties(
                rank=_WHOLE, activation=_REAL, row=_WHOLE, column=_WHOLE, **{"class": _TEXT}
            ),
        ),
    )
}
"""Type -> kind of relationship, in the order of loading, which follows that of all nodes."""


def layer_key(model: str, layer: str) -> str:
    """The key of the layer called `layer`."""
    return f"{model}/layer/{layer}"


def neuron_key(model: str, layer: str, channel: int) -> str:
    """The key of a neuron: that of its model, then its name."""
    return f"{model}/{layer}/{channel}"


def class_key(model: str, index: int) -> str:
    """The key of the class with an index."""
    return f"{model}/class/{index}"


def image_key(model: str, image: int) -> str:
    """The key of the image with a number."""
    return f"{model}/image/{image}"


@dataclass(frozen=True)
class Index:
    """A constraint or an index. name: its own, in the database. text: the statement that makes it
    where it is not there yet."""

    name: str
    text: str


def _constraint(label: str) -> Index:
    name = f"summit_graph_{label.lower()}_key"
    return Index(
        name,
        f"CREATE CONSTRAINT {name} IF NOT EXISTS FOR (n:{label}) REQUIRE n.key IS UNIQUE",
    )


def _node_index(label: str, *properties: str) -> Index:
    name = "_".join(("summit_graph", label.lower(), *properties))
    columns = ", ".join(f"n.{column}" for column in properties)
    return Index(name, f"CREATE INDEX {name} IF NOT EXISTS FOR (n:{label}) ON ({columns})")


def _relationship_index(type_: str, *properties: str) -> Index:
    name = "_".join(("summit_graph", type_.lower(), *properties))
    columns = ", ".join(f"r.{column}" for column in properties)
    return Index(name, f"CREATE INDEX {name} IF NOT EXISTS FOR ()-[r:{type_}]-() ON ({columns})")


INDEXES: tuple[Index, ...] = (
    *(_constraint(label) for label in NODES),
    _node_index("Class", "name"),
    _node_index("Image", "path"),
    _relationship_index("INFLUENCES", "class"),
    _relationship_index("INFLUENCES", "class", "selected"),
    _relationship_index("SIMILAR_TO", "layer"),
    _relationship_index("EXAMPLE", "class"),
)
"""Every key is unique. A class's influences are found by its key, those of its attribution graph by
`selected`, which only they have: that index holds nothing else."""
