"""Reads a model from Neo4j: the questions that `Atlas` answers, with the same records.

1. `GraphDB.open` takes one model of the database that is loaded whole, and notes its fingerprint.
2. Each question is one read transaction in a session that the server lets only read. Its last
   statement asks for the fingerprint again: an answer counts only if the model was not taken down
   or loaded anew on the way.
3. Names become keys before anything is asked (`atlas.interface.find_class` and the like), values
   go as parameters, and the records are those of `atlas.interface`, number for number.
4. All classes are read once, at the first question that needs them. Activations are read class by
   class; nothing large is kept.

Source of what the numbers mean: docs/method.md, sections 2 to 6.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import neo4j
import numpy as np
import pyarrow as pa

from summit_graph.atlas.interface import (
    AttributionGraph,
    ClassPoint,
    ClassRecord,
    Comparison,
    Confusion,
    EdgeRecord,
    ExampleRecord,
    Neighbourhood,
    NeuronInClass,
    NeuronRecord,
    NeuronView,
    SimilarClass,
    Vote,
    compared,
    find_class,
    find_layer,
    find_neuron,
    no_embedding,
    not_known,
    share_of,
)
from summit_graph.atlas.schema import LayerEntry
from summit_graph.errors import DatabaseError, UnknownClass, UnknownNeuron, UsageError
from summit_graph.graphdb.connection import (
    PASSWORD_VARIABLE,
    Connection,
    connect,
    opened,
    read_session,
    translated,
)
from summit_graph.graphdb.model import class_key, image_key, neuron_key
from summit_graph.graphdb.queries import Result, query, require, run

if TYPE_CHECKING:
    import py2neo

Answer = TypeVar("Answer")
Rows = list[dict[str, Any]]

_SHOWN = 8
"""Models that a message lists."""

_ALL = 2**63 - 1
"""A limit that is none."""

_MODELS = """
MATCH (model:Model) RETURN properties(model) ORDER BY model.key
"""

_CLASSES = """
MATCH (:Model {key: $model})-[:HAS_CLASS]->(class:Class)
RETURN properties(class) ORDER BY class.index
"""

_ACTIVATIONS = """
MATCH (:Class {key: $class})-[activates:ACTIVATES]->(neuron:Neuron)
WHERE $start <= neuron.index < $end
WITH neuron.index AS index, activates.count AS count ORDER BY index
RETURN collect(index), collect(count)
"""

_IMAGES = """
MATCH (image:Image {path: $path}) RETURN image.key, image.index
"""

_IMAGE = """
MATCH (image:Image {key: $key}) RETURN image.key, image.index
"""

_NODES = """
MATCH (node:Class {key: $class}) RETURN node
UNION ALL
MATCH (:Class {key: $class})-[:ATTRIBUTES]->(node:Neuron) RETURN node
"""

_RELATIONSHIPS = """
MATCH (start:Class {key: $class})-[one:ATTRIBUTES]->(end:Neuron)
RETURN id(one), type(one), start.key, end.key, properties(one)
UNION ALL
MATCH (start:Neuron)-[one:INFLUENCES {class: $class, selected: true}]->(end:Neuron)
RETURN id(one), type(one), start.key, end.key, properties(one)
"""

_NOW = """
MATCH (model:Model {key: $model}) RETURN model.loaded, model.fingerprint, model.edges
"""


class GraphDB:
    """A model in Neo4j, read only. Made by `GraphDB.open`; a context manager.

    Answers what `Atlas` does, with equal records. key: the model's; connection: where it is.
    Wherever Neo4j cannot be reached, refuses, or has the model no more, or no more as it was
    opened, a question raises DatabaseError.
    """

    def __init__(
        self,
        connection: Connection,
        driver: neo4j.Driver,
        model: Mapping[str, Any],
        resources: ExitStack,
    ) -> None:
        self.connection = connection
        self.key: str = model["key"]
        self._driver = driver
        self._model = dict(model)
        self._resources: ExitStack | None = resources

    @classmethod
    def open(
        cls,
        model: str | None = None,
        *,
        uri: str | None = None,
        user: str | None = None,
        password: str | None = None,
        database: str | None = None,
        home: str | Path | None = None,
    ) -> GraphDB:
        """Opens a model of a database.

        model: its key; None for the only one there is. uri, user, password, database, home: as
        `connection.connect` takes them; what is None comes from the environment, or is that of the
        local server that runs.
        Raises: DatabaseError if the database cannot be used, has no such model, or has it only in
        part; UsageError if it has several and none is named.
        """
        environment = dict(os.environ)
        if password is not None:
            environment[PASSWORD_VARIABLE] = password
        place = None if home is None else Path(home)
        connection = connect(uri, user, database, place, environment)
        with ExitStack() as stack:
            driver = stack.enter_context(opened(connection))
            with read_session(driver, connection) as session:
                found = session.execute_read(_chosen, model, connection.uri)
            return cls(connection, driver, found, stack.pop_all())

    def close(self) -> None:
        """Closes the connections. Questions raise DatabaseError from then on."""
        if self._resources is not None:
            self._resources.close()
            self._resources = None

    def __enter__(self) -> GraphDB:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"GraphDB({self.key!r}, uri={self.connection.uri!r})"

    def info(self) -> dict[str, Any]:
        """What the database says of the model: the properties of its node `Model`.

        `key`, `name`, `spec`, `weights` (a hash), `dataset`, `grouping`, `images`, `mass`,
        `damping`, `edges` (`graph` or `attribution`: which influences were loaded), ….
        """
        return dict(self._model)

    @property
    def partial(self) -> bool:
        """Whether it holds published attribution graphs alone; see `atlas.interface`."""
        return bool(self._model.get("partial"))

    @cached_property
    def layers(self) -> tuple[LayerEntry, ...]:
        """The chosen layers, in the order of the forward pass."""
        (rows,) = self._ask(("layers", {"model": self.key}))
        return tuple(
            LayerEntry(
                row["index"], row["layer"], True, row["channels"], row["height"], row["width"]
            )
            for row in rows
        )

    @cached_property
    def classes(self) -> tuple[ClassRecord, ...]:
        """All classes, by index."""

        def read(transaction: neo4j.ManagedTransaction) -> tuple[ClassRecord, ...]:
            rows = transaction.run(_CLASSES, {"model": self.key})
            return tuple(_record(properties) for (properties,) in rows)

        return self._read(read)

    def find(self, name: str | int) -> ClassRecord:
        """The class that `name` means: an index, a name, a synset or a part of a name.

        Raises: UnknownClass if none fits (the nearest are listed) or several do; see `find_class`.
        """
        return find_class(self.classes, name)

    def attribution_graph(self, name: str | int) -> AttributionGraph:
        """The attribution graph of a class (docs/method.md, section 5).

        name: as `find` takes it. Raises: UnknownClass.
        """
        record = self.find(name)
        of_class = self._of(record)
        neurons, edges = self._ask(("attribution-graph", of_class), ("attribution-edges", of_class))
        return AttributionGraph(
            record,
            tuple(
                NeuronRecord(
                    self._name(row["neuron"]),
                    row["layer"],
                    row["channel"],
                    row["pagerank"],
                    row["rank"],
                    row["count"],
                    share_of(row["count"], record.images),
                )
                for row in neurons
            ),
            self._edges(edges, record),
        )

    def activations(self, name: str | int | None = None, layer: str | None = None) -> pa.Table:
        """In how many images neurons are active (docs/method.md, section 2).

        name: of one class (None: all). layer: of one chosen layer (None: all).
        Returns an Arrow table with columns class (index), layer (name), channel, count (images, 1
        and up), share (count / images of the class, null where those are not known), sorted by
        class, layer, channel.
        Raises: UnknownClass, UnknownLayer.
        """
        start, end = 0, len(self._neurons)
        if layer is not None:
            entry = find_layer(self.layers, layer)
            start = self._neurons.index((entry.name, 0)) if entry.channels else 0
            end = start + entry.channels
        records = self.classes if name is None else (self.find(name),)
        bounds = {"start": start, "end": end}

        def read(transaction: neo4j.ManagedTransaction) -> list[pa.Table]:
            parts = []
            for record in records:
                answer = transaction.run(_ACTIVATIONS, {**self._of(record), **bounds}).single(True)
                parts.append(self._active(record, *answer.values()))
            return parts

        return pa.concat_tables([_ACTIVE.empty_table(), *self._read(read)])

    def _active(self, record: ClassRecord, indices: list[int], counts: list[int]) -> pa.Table:
        places = [self._neurons[index] for index in indices]
        columns = [
            np.full(len(indices), record.index, dtype=np.int32),
            [layer for layer, _ in places],
            [channel for _, channel in places],
            counts,
            [share_of(count, record.images) for count in counts],
        ]
        return pa.table(columns, schema=_ACTIVE)

    def neuron(self, neuron: str) -> NeuronView:
        """The classes that a neuron matters to: those that rank it or have it active.

        neuron: like `inception4c/57`. Raises: UnknownNeuron.
        """
        layer, channel = find_neuron(self.layers, neuron)
        of_neuron = {"neuron": neuron_key(self.key, layer.name, channel)}
        (rows,) = self._ask(("classes-of-neuron", of_neuron))
        images = {record.index: record.images for record in self.classes}
        return NeuronView(
            neuron,
            layer.name,
            channel,
            tuple(
                NeuronInClass(
                    row["index"],
                    row["name"],
                    row["pagerank"],
                    row["rank"],
                    row["selected"],
                    row["count"],
                    share_of(row["count"], images[row["index"]]),
                )
                for row in rows
            ),
        )

    def neighbours(self, neuron: str, name: str | int, limit: int = 10) -> Neighbourhood:
        """The strongest influences into and out of a neuron in a class's graph.

        They are edges of the whole graph `G_c` (docs/method.md, section 4), not only of the
        attribution graph, unless the atlas is partial; `limit` each way.
        Raises: UnknownNeuron, UnknownClass; DatabaseError if the atlas was loaded with the edges of
        its attribution graphs alone.
        """
        layer, channel = find_neuron(self.layers, neuron)
        record = self.find(name)
        require(query("neighbours"), self._model, self.connection.uri)
        key = neuron_key(self.key, layer.name, channel)
        (rows,) = self._ask(("neighbours", {**self._of(record), "neuron": key, "limit": _ALL}))
        sources, targets = (
            self._edges([row for row in rows if row["direction"] == direction], record)[:limit]
            for direction in ("source", "target")
        )
        return Neighbourhood(sources, targets)

    def compare(self, first: str | int, second: str | int) -> Comparison:
        """The neurons that the attribution graphs of two classes share, and those of one alone.

        Raises: UnknownClass.
        """
        return compared(self.attribution_graph(first), self.attribution_graph(second))

    def similar(
        self, name: str | int, layer: str | None = None, limit: int = 10
    ) -> tuple[SimilarClass, ...]:
        """The classes whose activations are nearest to one's, by cosine, the nearest first.

        layer: in one chosen layer (None: the mean over them). Source: docs/method.md, section 6.
        Raises: UnknownClass, UnknownLayer; AtlasError if the atlas is partial.
        """
        record = self.find(name)
        parameters = {**self._of(record), "limit": _ALL}
        if layer is not None:
            parameters["layer"] = find_layer(self.layers, layer).name
        self._require("the classes nearest to one")
        question = "similar-classes-overall" if layer is None else "similar-classes"
        (rows,) = self._ask((question, parameters))
        return tuple(SimilarClass(row["index"], row["name"], row["cosine"]) for row in rows[:limit])

    def embedding(self, layer: str) -> tuple[ClassPoint, ...]:
        """Where the classes stand in a chosen layer: near each other if they activate alike.

        By index; a class that no neuron of the layer is active for has no place. All layers share
        their axes, so that places can be compared between them. Source: docs/method.md, section 6.
        Raises: UnknownLayer; AtlasError if the atlas that was loaded has no embedding, or is
        partial.
        """
        parameters = {"model": self.key, "layer": find_layer(self.layers, layer).name}
        self._require("the places of classes")
        if not self._model.get("embedding"):
            raise no_embedding()
        (rows,) = self._ask(("embedding", parameters))
        return tuple(ClassPoint(row["index"], row["name"], row["x"], row["y"]) for row in rows)

    def confusions(self, name: str | int) -> tuple[Confusion, ...]:
        """What other classes a class's images are taken for, the most frequent first.

        Grouped by prediction: what they are instead. Raises: UnknownClass; AtlasError if the atlas
        is partial.
        """
        record = self.find(name)
        self._require("the confusions of a class")
        (rows,) = self._ask(("confusions", self._of(record)))
        return tuple(
            Confusion(
                row["index"], row["name"], row["count"], share_of(row["count"], record.images)
            )
            for row in rows
        )

    def votes(self, name: str | int, limit: int | None = None) -> tuple[Vote, ...]:
        """The neurons of the last layers that speak for a class, the most frequent first.

        limit: how many at most (None: all). Source: docs/method.md, section 6.
        Raises: UnknownClass; AtlasError if the atlas is partial.
        """
        record = self.find(name)
        self._require("the votes for a class")
        (rows,) = self._ask(("votes", {**self._of(record), "limit": _ALL}))
        return tuple(
            Vote(
                self._name(row["neuron"]),
                row["layer"],
                row["channel"],
                row["count"],
                share_of(row["count"], record.images),
            )
            for row in rows[:limit]
        )

    def examples(self, neuron: str, name: str | int | None = None) -> tuple[ExampleRecord, ...]:
        """The images that excite a neuron most, the highest activation first.

        name: among the images of one class, where the atlas was counted so; None: among all.
        Raises: UnknownNeuron, UnknownClass; AtlasError if the atlas is partial.
        """
        layer, channel = find_neuron(self.layers, neuron)
        index = None if name is None else self.find(name).index
        self._require("the images that excite a neuron")
        parameters = {
            "neuron": neuron_key(self.key, layer.name, channel),
            "class": None if index is None else class_key(self.key, index),
        }
        (rows,) = self._ask(("examples", parameters))
        return tuple(
            ExampleRecord(
                row["rank"],
                int(row["image"].rpartition("/")[2]),
                row["path"],
                row["activation"],
                row["row"],
                row["column"],
            )
            for row in rows
        )

    def run(self, name: str, parameters: Mapping[str, Any] | None = None) -> Result:
        """Runs one of the queries in `cypher/`.

        name: of the query (`queries.names` lists them). parameters: by name; classes as `find`
        takes them, neurons like `inception4c/57`, images by path or number, or their keys; `model`
        is this one unless another is given.
        Raises: UsageError for a query or parameter that is not there, or of the wrong type;
        UnknownClass, UnknownNeuron, UnknownLayer; DatabaseError as `queries.run`.
        """
        asked = query(name)
        given = dict(parameters or {})
        for parameter in asked.parameters:
            if parameter.name == "model":
                given.setdefault("model", self.key)
            if parameter.name not in given:
                continue
            value = given[parameter.name]
            if parameter.name == "layer" and isinstance(value, str):
                given["layer"] = find_layer(self.layers, value).name
            elif isinstance(value, (list, tuple)):
                given[parameter.name] = [self._key(parameter.label, each) for each in value]
            else:
                given[parameter.name] = self._key(parameter.label, value)
        self._ask()
        return run(self._driver, self.connection, asked, given)

    def _key(self, label: str | None, value: Any) -> Any:
        """The key that a value stands for; the value where it is no name of such a node."""
        if label == "Neuron" and isinstance(value, str):
            return self._neuron_key(value)
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            if label == "Class":
                return self._class_key(value)
            if label == "Image":
                return self._image_key(value)
        return value

    def _class_key(self, name: str | int) -> str:
        """The key of the class that `name` means, or that it already is the key of.

        Raises: UnknownClass.
        """
        keys = {class_key(self.key, record.index) for record in self.classes}
        try:
            return class_key(self.key, self.find(name).index)
        except UnknownClass:
            if name in keys:
                return str(name)
            raise

    def _neuron_key(self, name: str) -> str:
        """The key of the neuron called `name`, or that it already is the key of.

        Raises: UnknownNeuron.
        """
        try:
            layer, channel = find_neuron(self.layers, name)
        except UnknownNeuron:
            if not name.startswith(f"{self.key}/"):
                raise
            layer, channel = find_neuron(self.layers, self._name(name))
        return neuron_key(self.key, layer.name, channel)

    def _image_key(self, name: str | int) -> str:
        """The key of the image with a path or a number, or that it already is the key of.

        Images are in the database that are an example of a neuron. Raises: UsageError.
        """
        text = str(name)
        keys = [text]
        if text.isascii() and text.isdigit():
            keys.insert(0, image_key(self.key, int(text)))

        def read(transaction: neo4j.ManagedTransaction) -> Rows:
            rows = transaction.run(_IMAGES, {"path": text}).data()
            for key in keys:
                rows += transaction.run(_IMAGE, {"key": key}).data()
            return rows

        for row in self._read(read):
            # Another model may have an image of the same path.
            if row["image.key"] == image_key(self.key, row["image.index"]):
                return image_key(self.key, row["image.index"])
        raise UsageError(
            f"{self.key!r} has no image {name!r} among its neurons' examples. Name one by its "
            "path, as the query 'examples' shows it, or by its number."
        )

    def py2neo(self, name: str | int) -> py2neo.Subgraph:
        """The attribution graph of a class for `py2neo` and whatever draws its subgraphs.

        name: as `find` takes it. Nodes are the class and its neurons, relationships ATTRIBUTES and
        INFLUENCES between them, all of them bound to the database and with their properties, but
        for `selected`, which is true of each influence and which ipycytoscape would take for a
        mouse's selection. `CytoscapeWidget().graph.add_graph_from_neo4j(subgraph)` draws it whole.

        py2neo makes a connection of its own, to the address itself, which stays open as long as
        the subgraph is used.
        Raises: UnknownClass; DatabaseError also if py2neo cannot connect.
        """
        record = self.find(name)
        # py2neo tries for ever where no server answers: this one has to, first.
        self._ask()
        with _py2neo_graph(self.connection) as graph:
            return _subgraph(graph, self.key, self._of(record), self._checked)

    @cached_property
    def _neurons(self) -> list[tuple[str, int]]:
        """Layer and channel of each neuron, by `Neuron.index`."""
        return [(layer.name, channel) for layer in self.layers for channel in range(layer.channels)]

    def _of(self, record: ClassRecord) -> dict[str, Any]:
        return {"class": class_key(self.key, record.index)}

    def _require(self, what: str) -> None:
        if self.partial:
            raise not_known(what)

    def _edges(self, rows: Rows, record: ClassRecord) -> tuple[EdgeRecord, ...]:
        return tuple(
            EdgeRecord(
                self._name(row["source"]),
                self._name(row["target"]),
                row["count"],
                share_of(row["count"], record.images),
            )
            for row in rows
        )

    def _name(self, key: str) -> str:
        """The name of a neuron with a key."""
        return key[len(self.key) + 1 :]

    def _ask(self, *questions: tuple[str, dict[str, Any]]) -> list[Rows]:
        """The rows that each question has, all read in one transaction.

        A question is the name of a file in `cypher/`, and its parameters.
        """

        def read(transaction: neo4j.ManagedTransaction) -> list[Rows]:
            return [
                [record.data() for record in transaction.run(query(name).text, parameters)]
                for name, parameters in questions
            ]

        return self._read(read)

    def _read(self, work: Callable[[neo4j.ManagedTransaction], Answer]) -> Answer:
        """What `work` answers, if the model is still as it was opened when it is done."""
        if self._resources is None:
            raise DatabaseError(f"{self!r} is closed. Open the model again with `GraphDB.open`.")

        def read(transaction: neo4j.ManagedTransaction) -> Answer:
            answer = work(transaction)
            now = transaction.run(_NOW, {"model": self.key}).single()
            self._checked(None if now is None else now.values())
            return answer

        with translated(self.connection), read_session(self._driver, self.connection) as session:
            return session.execute_read(read)

    def _checked(self, now: list[Any] | None) -> None:
        """now: what `_NOW` answers, None for no row."""
        if now is None:
            raise DatabaseError(
                f"{self.connection.uri} has no model {self.key!r} any more: it was unloaded since "
                "it was opened."
            )
        loaded, *content = now
        if not loaded:
            raise DatabaseError(_unfinished(self.key, self.connection.uri))
        if content != [self._model["fingerprint"], self._model["edges"]]:
            raise DatabaseError(f"{self.key!r} was loaded anew since it was opened. Open it again.")


_ACTIVE = pa.schema(
    [
        ("class", pa.int32()),
        ("layer", pa.string()),
        ("channel", pa.int32()),
        ("count", pa.int32()),
        ("share", pa.float64()),
    ]
)


def _chosen(
    transaction: neo4j.ManagedTransaction, model: str | None, address: str
) -> dict[str, Any]:
    """The properties of the model that is meant, whole."""
    models = {record.value()["key"]: record.value() for record in transaction.run(_MODELS)}
    keys = list(models)
    if not keys:
        raise DatabaseError(f"{address} holds no model. Load one with `summit-graph load ATLAS`.")
    if model is None:
        if len(keys) > 1:
            raise UsageError(
                f"{address} holds {len(keys)} models: {_listed(keys)}. Name the one you mean."
            )
        (model,) = keys
    if model not in models:
        near = difflib.get_close_matches(model, keys, n=3, cutoff=0.5)
        those = f"The nearest are {_listed(near)}." if near else f"It has {_listed(keys)}."
        raise DatabaseError(f"{address} holds no model {model!r}. {those}")
    found: dict[str, Any] = models[model]
    if not found.get("loaded"):
        raise DatabaseError(_unfinished(model, address))
    return found


def _listed(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(map(repr, keys[:_SHOWN])) + more


def _unfinished(model: str, address: str) -> str:
    return (
        f"{model!r} in {address} is not whole: it is being loaded or unloaded, or that was cut "
        "off. If nothing is at work on it, run the same `summit-graph load` (or `unload`) again."
    )


def _record(properties: Mapping[str, Any]) -> ClassRecord:
    """properties: of a `Class` node. What is null, or an empty list, is not among them."""
    probability = properties.get("probability")
    converged = properties.get("converged")
    return ClassRecord(
        index=properties["index"],
        name=properties["name"],
        synset=properties.get("synset"),
        images=properties.get("images"),
        top1=properties.get("top1"),
        top5=properties.get("top5"),
        probability=None if probability is None else tuple(probability),
        neurons=properties.get("neurons"),
        edges=properties.get("edges"),
        mass=properties.get("mass"),
        threshold=properties.get("threshold"),
        converged=converged,
        unconnected=None if converged is None else tuple(properties.get("unconnected", ())),
    )


@contextmanager
def _py2neo_graph(connection: Connection) -> Iterator[py2neo.Graph]:
    """A py2neo graph of the database; what py2neo raises inside becomes DatabaseError.

    It asks the one server at the address: for reading, no other member of a cluster is needed.
    """
    import py2neo
    from py2neo.wiring import WireError

    scheme, _, rest = connection.uri.partition("://")
    address = f"{scheme.replace('neo4j', 'bolt')}://{rest}"
    try:
        with _without_default_address(py2neo):
            graph = py2neo.Graph(
                address,
                user=connection.user,
                password=connection.password,
                name=connection.database,
            )
        yield graph
    except (
        py2neo.Neo4jError,
        py2neo.ConnectionUnavailable,
        py2neo.ConnectionBroken,
        py2neo.ConnectionLimit,
        py2neo.ServiceUnavailable,
        py2neo.ProtocolError,
        WireError,
        ValueError,
    ) as error:
        raise DatabaseError(
            f"py2neo cannot ask {address}: {error}. `GraphDB` itself can; py2neo 2021.2 speaks an "
            "older protocol, over bolt, bolt+s and bolt+ssc."
        ) from error


@contextmanager
def _without_default_address(module: Any) -> Iterator[None]:
    """py2neo puts NEO4J_URI into every profile before it looks at the address it is given, and
    fails where that starts with `neo4j`."""
    default, module.NEO4J_URI = module.NEO4J_URI, None
    try:
        yield
    finally:
        module.NEO4J_URI = default


def _subgraph(
    graph: py2neo.Graph,
    key: str,
    of_class: Mapping[str, Any],
    checked: Callable[[list[Any] | None], None],
) -> py2neo.Subgraph:
    """The attribution graph of a class.

    Relationships are asked for by number and content: a whole one would have py2neo ask for each of
    its ends alone, and there would be two objects for the node numbered 0.
    """
    import py2neo

    transaction = graph.begin(readonly=True)
    try:
        nodes = {node["key"]: node for (node,) in transaction.run(_NODES, of_class)}
        rows = list(transaction.run(_RELATIONSHIPS, of_class))
        now = [record.values() for record in transaction.run(_NOW, {"model": key})]
    finally:
        graph.rollback(transaction)
    checked(now[0] if now else None)
    relationships = []
    for identity, kind, start, end, properties in rows:
        one = py2neo.Relationship.ref(graph, identity, nodes[start], kind, nodes[end])
        one.clear()
        one.update({name: value for name, value in properties.items() if name != "selected"})
        relationships.append(one)
    return py2neo.Subgraph(nodes.values(), relationships)
