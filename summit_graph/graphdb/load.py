"""Loads an atlas into Neo4j over Bolt, and removes a model, so that each can be cut off anywhere.

1. Constraints and indexes come first, where they are missing.
2. The loader marks the node `Model` with a token of its own (`loader`) and with how many rows are
   in (`progress`); `loaded` is false until all are.
3. The rows go in by batches, in the order of `rows.GraphRows`. Each batch is one transaction,
   which locks the node `Model`, looks whether the token is still its own and the batch not in yet,
   creates the rows, and moves `progress` on. So a batch whose commit nobody heard of is not created
   twice, a loader that died is continued by the next, and of two loaders the first one stops.
4. A model that has changed is emptied before, `loaded` being false all the while. Removing goes by
   batches too: the relationships of some nodes, then these nodes; the node `Model` at last.

Relationships are created from columns of numbers; the nodes at their ends are found by key once a
batch. Text of queries comes from the constants of `model.py`, all else is a parameter.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import neo4j
import numpy as np
import pyarrow as pa
from neo4j import exceptions

from summit_graph.atlas.atlas import Atlas
from summit_graph.errors import DatabaseError, UsageError
from summit_graph.graphdb.connection import Connection, opened, write_session
from summit_graph.graphdb.model import (
    END,
    INDEXES,
    NODES,
    RELATIONSHIPS,
    START,
    Node,
    Relationship,
    class_key,
)
from summit_graph.graphdb.rows import GraphRows, Kind
from summit_graph.reporting import Progress, Reports, Stage

BATCH = 20_000
"""Rows of a transaction."""

_BATCH_BYTES = 8 << 20
"""Of a batch's columns; long names make a batch of fewer rows."""

_DELETED = 10_000
"""Relationships that a transaction deletes, if it is not told another number."""

_EMPTIED = 1_000
"""Nodes whose relationships are deleted before the next ones are looked at."""

_COMMITS = 5
"""Attempts at a transaction while the connection breaks at its commit."""

_INDEXING = 3_600
"""Seconds that the server has for filling the indexes."""

_CHILDREN = ("Neuron", "Image", "Class", "Layer")
"""Labels of a model's nodes, in the order of removing."""

_NODE_BYTES, _RELATIONSHIP_BYTES, _EDGE_BYTES = 350, 110, 220
"""On disk, with properties and indexes; edges are `INFLUENCES`. Measured by benchmarks/neo4j.py."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class LoadReport:
    """What is in the database now.

    Attributes:
        key: of the model.
        nodes: label -> how many, the node `Model` included.
        relationships: type -> how many.
        seconds: that it took.
        already: it was there before, and nothing was written.
        first_query: Cypher to paste into Neo4j Browser, which draws a class's attribution graph.
    """

    key: str
    nodes: dict[str, int]
    relationships: dict[str, int]
    seconds: float
    already: bool
    first_query: str


@dataclass(frozen=True)
class UnloadReport:
    """What was removed: nodes (with the node `Model`) and relationships of the model `key`."""

    key: str
    nodes: int
    relationships: int
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """What loading would make: label or type -> how many, and about how many bytes on disk."""

    nodes: dict[str, int]
    relationships: dict[str, int]
    bytes: int


def load(
    atlas: Atlas | str | Path,
    connection: Connection,
    *,
    edges: str = "graph",
    replace: bool = False,
    batch: int | None = None,
    progress: Progress | None = None,
) -> LoadReport:
    """Puts an atlas into the database, beside the models that are there.

    Run again it goes on where it was cut off; loaded twice is loaded once. An atlas that has
    changed (more images, another ranking, other `edges`) takes the place of its older self.

    Args:
        atlas: a ranked atlas, or its folder.
        connection: to the database.
        edges: 'graph' for all influences of every class's graph, 'attribution' for those between
            neurons of its attribution graph.
        replace: let it take the place of a model of the same key that is of something else
            (network, weights, layers, grouping, classes or data set).
        batch: rows of a transaction; None for `BATCH`.
        progress: where to report; None is silent.

    Raises:
        AtlasError: the atlas cannot be read, or is not ranked.
        DatabaseError: the database cannot be reached or refuses; the key belongs to another model;
            another loader took this model over. What was committed is kept.
        UsageError: `edges` or `batch` is out of range.
    """
    started = time.monotonic()
    limit = _checked(batch, BATCH)
    reports = Reports(progress)
    with reading(atlas) as source:
        rows = GraphRows(source, edges)
        with reports.stage("reading the atlas", None, "table"):
            counts = rows.counts
        with _writing(connection, rows.key) as writer:
            make_indexes(writer.session)
            claim = writer.claim(rows, replace)
            if claim.stale:
                writer.empty(reports, min(limit, _DELETED))
                writer.begin(rows)
            if not claim.loaded:
                with reports.stage("loading", sum(counts.values()) - 1, "row") as stage:
                    stage.advance(claim.rows)
                    writer.create(rows, claim.rows, limit, stage)
        query = first_query(rows)
    nodes, relationships = nodes_of(counts), relationships_of(counts)
    seconds = time.monotonic() - started
    return LoadReport(rows.key, nodes, relationships, seconds, claim.loaded, query)


def unload(
    model: str,
    connection: Connection,
    *,
    batch: int | None = None,
    progress: Progress | None = None,
) -> UnloadReport:
    """Removes a model, whole or half loaded, by bounded transactions. Run again it goes on.

    Its nodes go with all their relationships; nodes of other models are not touched.

    Args:
        model: its key.
        connection: to the database.
        batch: relationships that a transaction deletes; None for a number that suits a small heap.
        progress: where to report; None is silent.

    Raises:
        DatabaseError: there is no such model (those there are, are named); a loader took it over
            meanwhile; the database cannot be reached, or refuses.
        UsageError: `batch` is out of range.
    """
    started = time.monotonic()
    limit = _checked(batch, _DELETED)
    with _writing(connection, model) as writer:
        writer.take()
        nodes, relationships = writer.empty(Reports(progress), limit)
        writer.remove()
    return UnloadReport(model, nodes + 1, relationships, time.monotonic() - started)


def nodes_of(counts: Mapping[str, int]) -> dict[str, int]:
    """Label -> how many, of `GraphRows.counts`."""
    return {label: counts[label] for label in NODES}


def relationships_of(counts: Mapping[str, int]) -> dict[str, int]:
    """Type -> how many, of `GraphRows.counts`."""
    return {type_: counts[type_] for type_ in RELATIONSHIPS}


def estimate(atlas: Atlas | str | Path, edges: str = "graph") -> Estimate:
    """What loading an atlas would make, from the atlas alone.

    Nodes and relationships are exact. Bytes are those of the database's files with their indexes,
    without transaction logs, and right to a factor of about two.
    Raises: AtlasError if the atlas cannot be read or is not ranked; UsageError if `edges` is none
    of `model.EDGES`.
    """
    with reading(atlas) as source:
        counts = GraphRows(source, edges).counts
    nodes, relationships = nodes_of(counts), relationships_of(counts)
    size = _NODE_BYTES * sum(nodes.values())
    size += _EDGE_BYTES * relationships["INFLUENCES"]
    size += _RELATIONSHIP_BYTES * (sum(relationships.values()) - relationships["INFLUENCES"])
    return Estimate(nodes, relationships, size)


@contextmanager
def reading(atlas: Atlas | str | Path) -> Iterator[Atlas]:
    """An open atlas; closed at the end if it was opened here. Raises: AtlasError."""
    if isinstance(atlas, Atlas):
        yield atlas
        return
    with Atlas.open(atlas) as opened_here:
        yield opened_here


def make_indexes(session: neo4j.Session) -> None:
    """Makes the constraints and indexes of `model.INDEXES` that are missing, and waits for them."""
    there = {
        name
        for statement in ("SHOW CONSTRAINTS YIELD name", "SHOW INDEXES YIELD name")
        for (name,) in session.run(statement)
    }
    for index in INDEXES:
        if index.name not in there:
            session.execute_write(partial(_run, text=index.text))
    session.run("CALL db.awaitIndexes($seconds)", seconds=_INDEXING).consume()


def creating(kind: Kind) -> str:
    """The statement that creates rows of a kind from columns.

    Parameters: for each property a list `_<property>`. For relationships also `starts` and `ends`,
    keys of the distinct nodes, and `start` and `end`, the place of each row's nodes among them.
    It creates nothing where one of these nodes is missing.
    """
    values = ", ".join(f"`{name}`: $_{name}[i]" for name in kind.properties.names)
    if isinstance(kind, Node):
        return f"UNWIND range(0, size($_key) - 1) AS i CREATE (:{kind.label} {{{values}}})"
    return f"""
CALL () {{
  UNWIND range(0, size($starts) - 1) AS i
  MATCH (n:{kind.start} {{key: $starts[i]}})
  WITH i, n ORDER BY i
  RETURN collect(n) AS starts
}}
CALL () {{
  UNWIND range(0, size($ends) - 1) AS i
  MATCH (n:{kind.end} {{key: $ends[i]}})
  WITH i, n ORDER BY i
  RETURN collect(n) AS ends
}}
WITH starts, ends WHERE size(starts) = size($starts) AND size(ends) = size($ends)
UNWIND range(0, size($start) - 1) AS i
WITH i, starts[$start[i]] AS a, ends[$end[i]] AS b
CREATE (a)-[:{kind.type} {{{values}}}]->(b)
"""


def parameters(kind: Kind, table: pa.Table, keys: Mapping[str, pa.StringArray]) -> dict[str, Any]:
    """The parameters of `creating` for some rows."""
    found = {f"_{name}": table.column(name).to_pylist() for name in kind.properties.names}
    if isinstance(kind, Relationship):
        for side, column, label in (("start", START, kind.start), ("end", END, kind.end)):
            distinct, place = np.unique(table.column(column), return_inverse=True)
            found[f"{side}s"] = keys[label].take(pa.array(distinct)).to_pylist()
            found[side] = place.tolist()
    return found


def batches(rows: GraphRows, limit: int, skip: int = 0) -> Iterator[tuple[Kind, pa.Table]]:
    """All rows but the node `Model`, from the row `skip` on, `limit` of one kind at a time."""
    for kind, tables in groupby(rows.tables(), key=lambda found: found[0]):
        if kind is NODES["Model"]:
            continue
        waiting: list[pa.Table] = []
        room = limit
        for _, table in tables:
            start = min(skip, table.num_rows)
            skip -= start
            while start < table.num_rows:
                part = table.slice(start, room)
                waiting.append(part)
                start += part.num_rows
                room -= part.num_rows
                if not room:
                    yield from _bounded(kind, pa.concat_tables(waiting))
                    waiting, room = [], limit
        if waiting:
            yield from _bounded(kind, pa.concat_tables(waiting))


def _bounded(kind: Kind, table: pa.Table) -> Iterator[tuple[Kind, pa.Table]]:
    """Rows in parts that are not larger than `_BATCH_BYTES`, or a row alone."""
    start = 0
    while start < table.num_rows:
        part = table.slice(start)
        while part.nbytes > _BATCH_BYTES and part.num_rows > 1:
            part = part.slice(0, part.num_rows // 2)
        yield kind, part
        start += part.num_rows


class _Claim(NamedTuple):
    """How a model stands when a loader has taken it. rows: that are in. stale: something else is
    in, and has to be removed first. loaded: the same is in, whole."""

    rows: int = 0
    stale: bool = False
    loaded: bool = False


class _Writer:
    """Changes one model, in transactions that each make sure that nobody else does."""

    def __init__(self, session: neo4j.Session, key: str) -> None:
        self.session = session
        self.key = key
        self.token = secrets.token_hex(16)

    def write(self, work: Callable[[neo4j.ManagedTransaction], Result]) -> Result:
        """A transaction, tried again while its failures are passing ones.

        work: is called again also where the answer to a commit was lost, so it has to see for
        itself whether it was carried out.
        """

        def attempt(tx: neo4j.ManagedTransaction) -> Result:
            try:
                return work(tx)
            except exceptions.TransientError as error:
                if "OutOfMemory" in (error.code or ""):
                    raise _OutOfMemoryError(error) from error
                raise

        for attempts in range(1, _COMMITS + 1):
            try:
                return self.session.execute_write(attempt)
            except exceptions.IncompleteCommit:
                if attempts == _COMMITS:
                    raise
            except _OutOfMemoryError as error:
                raise error.found from error
        raise AssertionError

    def claim(self, rows: GraphRows, replace: bool) -> _Claim:
        """Takes the model for this loader, unless it is loaded already."""

        def work(tx: neo4j.ManagedTransaction) -> _Claim:
            tx.run("MERGE (m:Model {key: $model})", model=self.key).consume()
            there = self._locked(tx)
            assert there is not None
            if there.keys() == {"key"}:
                self._alone(tx)
                self._set_begun(tx, rows)
                return _Claim()
            same = all(there.get(name) == rows.model[name] for name in ("fingerprint", "edges"))
            if there.get("identity") != rows.identity and not replace:
                raise DatabaseError(_other(there, rows.model))
            if same and there.get("loaded"):
                return _Claim(loaded=True)
            progress = there.get("progress") if same else None
            self._set_taken(tx, progress)
            return _Claim(stale=True) if progress is None else _Claim(progress)

        return self.write(work)

    def begin(self, rows: GraphRows) -> None:
        """Gives the emptied model its new properties."""

        def work(tx: neo4j.ManagedTransaction) -> None:
            self._held(tx)
            self._set_begun(tx, rows)

        self.write(work)

    def create(self, rows: GraphRows, skip: int, limit: int, stage: Stage) -> None:
        """Creates all rows from row `skip` on, then says that the model is whole.

        Before that the statistics of the indexes are renewed: else queries would be planned as if
        the database were still as empty as it was.
        """
        done = skip
        for kind, table in batches(rows, limit, skip):
            self.write(partial(self._add, rows=rows, start=done, kind=kind, table=table))
            done += table.num_rows
            stage.advance(table.num_rows)
        self.write(partial(_run, text="CALL db.prepareForReplanning()"))

        def finish(tx: neo4j.ManagedTransaction) -> None:
            there = self._locked(tx) or {}
            if there.get("loaded") and there.get("fingerprint") == rows.fingerprint:
                return
            self._held(tx)
            tx.run(
                "MATCH (m:Model {key: $model}) SET m.loaded = true REMOVE m.progress, m.loader",
                model=self.key,
            ).consume()

        self.write(finish)

    def _add(
        self, tx: neo4j.ManagedTransaction, rows: GraphRows, start: int, kind: Kind, table: pa.Table
    ) -> None:
        progress = self._held(tx).get("progress")
        if progress == start + table.num_rows:
            return
        if progress != start:
            raise DatabaseError(
                f"the model {self.key!r} has {progress} rows, it should have {start}: something "
                "else changed it. Run `summit-graph unload` on it, then load it again."
            )
        made = tx.run(creating(kind), parameters(kind, table, rows.keys)).consume().counters
        created = made.nodes_created if isinstance(kind, Node) else made.relationships_created
        if created != table.num_rows:
            raise DatabaseError(
                f"of {table.num_rows} rows {created} could be created: nodes of the model "
                f"{self.key!r} are missing from the database. Run `summit-graph unload` on it, "
                "then load it again."
            )
        tx.run(
            "MATCH (m:Model {key: $model}) SET m.progress = $progress",
            model=self.key,
            progress=start + table.num_rows,
        ).consume()

    def take(self) -> None:
        """Takes a model that is there, in order to remove it."""

        def work(tx: neo4j.ManagedTransaction) -> None:
            if self._locked(tx) is None:
                raise DatabaseError(_unknown(self.key, _models(tx)))
            self._set_taken(tx, None)

        self.write(work)

    def empty(self, reports: Progress, limit: int) -> tuple[int, int]:
        """Removes all nodes but `Model`, and all relationships: how many of each."""
        nodes = relationships = 0
        with reports.stage("removing what was loaded before", None, "row") as stage:
            for label in _CHILDREN:
                while keys := self._first_keys(label):
                    more = True
                    while more:
                        gone, more = self.write(
                            partial(self._delete, label=label, keys=keys, limit=limit)
                        )
                        relationships += gone
                        stage.advance(gone)
                    nodes += len(keys)
                    stage.advance(len(keys))
            stage.note(f"{nodes:,} nodes, {relationships:,} relationships")
        return nodes, relationships

    def remove(self) -> None:
        """Removes the emptied model itself."""

        def work(tx: neo4j.ManagedTransaction) -> None:
            if self._locked(tx) is not None:
                self._held(tx)
                tx.run("MATCH (m:Model {key: $model}) DETACH DELETE m", model=self.key).consume()

        self.write(work)

    def _first_keys(self, label: str) -> list[str]:
        found = self.session.run(
            f"MATCH (n:{label}) WHERE n.key STARTS WITH $prefix "
            "RETURN n.key AS key ORDER BY key LIMIT $limit",
            prefix=f"{self.key}/",
            limit=_EMPTIED,
        )
        return [record["key"] for record in found]

    def _delete(
        self, tx: neo4j.ManagedTransaction, label: str, keys: list[str], limit: int
    ) -> tuple[int, bool]:
        """Deletes relationships of some nodes, or, where few are left, the nodes too: how many
        relationships, and whether there is more to do."""
        self._held(tx)
        gone = (
            tx.run(
                f"UNWIND $keys AS key MATCH (n:{label} {{key: key}})-[r]-() "
                "WITH r LIMIT $limit DELETE r",
                keys=keys,
                limit=limit,
            )
            .consume()
            .counters.relationships_deleted
        )
        if gone:
            return gone, True
        tx.run(f"UNWIND $keys AS key MATCH (n:{label} {{key: key}}) DELETE n", keys=keys).consume()
        return 0, False

    # Parts of transactions.

    def _locked(self, tx: neo4j.ManagedTransaction) -> dict[str, Any] | None:
        """The properties of the node `Model`, which stay as they are until the transaction ends."""
        tx.run(
            "MATCH (m:Model {key: $model}) SET m.locked = true REMOVE m.locked", model=self.key
        ).consume()
        found = tx.run(
            "MATCH (m:Model {key: $model}) RETURN properties(m)", model=self.key
        ).single()
        return None if found is None else found[0]

    def _held(self, tx: neo4j.ManagedTransaction) -> dict[str, Any]:
        """As `_locked`. Raises: DatabaseError if the model is not this loader's any more."""
        there = self._locked(tx)
        if there is None or there.get("loader") != self.token:
            raise DatabaseError(
                f"another run has taken over the model {self.key!r}; this one stops. "
                "What it had loaded is kept."
            )
        return there

    def _alone(self, tx: neo4j.ManagedTransaction) -> None:
        """Raises: DatabaseError if keys of another model's nodes start as this model's do."""
        for other in _models(tx):
            if other.startswith(f"{self.key}/") or self.key.startswith(f"{other}/"):
                raise DatabaseError(
                    f"the keys of {self.key!r} and of {other!r}, which is in the database, could "
                    "not be told apart, as one name goes on after a slash where the other ends. "
                    "Make the atlas with another --name."
                )

    def _set_begun(self, tx: neo4j.ManagedTransaction, rows: GraphRows) -> None:
        names = [name for name in NODES["Model"].properties.names if name not in ("key", "loaded")]
        values = ", ".join(f"m.{name} = ${name}" for name in names)
        tx.run(
            f"MATCH (m:Model {{key: $key}}) "
            f"SET {values}, m.loaded = false, m.loader = $loader, m.progress = 0",
            **rows.model,
            loader=self.token,
        ).consume()

    def _set_taken(self, tx: neo4j.ManagedTransaction, progress: int | None) -> None:
        tx.run(
            "MATCH (m:Model {key: $model}) "
            "SET m.loaded = false, m.loader = $loader, m.progress = $progress",
            model=self.key,
            loader=self.token,
            progress=progress,
        ).consume()


class _OutOfMemoryError(Exception):
    """The server's memory limit, which trying again does not raise."""

    def __init__(self, found: exceptions.TransientError) -> None:
        super().__init__(str(found))
        self.found = found


def _checked(batch: int | None, default: int) -> int:
    if batch is not None and batch < 1:
        raise UsageError(f"batch is {batch}; it must be at least 1")
    return default if batch is None else batch


def _run(tx: neo4j.ManagedTransaction, text: str) -> None:
    tx.run(text).consume()


@contextmanager
def _writing(connection: Connection, key: str) -> Iterator[_Writer]:
    with opened(connection) as driver, write_session(driver, connection) as session:
        yield _Writer(session, key)


def _models(tx: neo4j.ManagedTransaction) -> list[str]:
    return [key for (key,) in tx.run("MATCH (m:Model) RETURN m.key ORDER BY m.key")]


def _unknown(key: str, models: list[str]) -> str:
    there = f"It has {', '.join(map(repr, models))}." if models else "It has none."
    return f"the database has no model {key!r}. {there}"


def _other(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Why a key cannot be used: what has it, and what wants it."""
    told = ("name", "weights", "dataset", "grouping", "identity")
    names = [name for name in told if there.get(name) != here[name]]

    def described(values: Mapping[str, Any]) -> str:
        return ", ".join(f"{name} {str(values.get(name))[:16]!r}" for name in names)

    return (
        f"the key {here['key']!r} belongs to another model in the database ({described(there)}); "
        f"this atlas is of something else ({described(here)}). Make the atlas with another --name, "
        "or load it with --replace to let it take that place."
    )


def first_query(rows: GraphRows) -> str:
    """Cypher to paste into Neo4j Browser: the attribution graph of the class with the most images.

    Where no class has a graph, the model's layers.
    """
    drawn = [record for record in rows.atlas.classes if record.neurons]
    if not drawn:
        return (
            f"MATCH (m:Model {{key: {literal(rows.key)}}})-[r:HAS_LAYER]->(l:Layer) RETURN m, r, l"
        )
    most = max(drawn, key=lambda record: (record.images or 0, -record.index))
    key = literal(class_key(rows.key, most.index))
    return (
        f"MATCH (c:Class {{key: {key}}})-[:ATTRIBUTES]->(n:Neuron)\n"
        "OPTIONAL MATCH (n)-[i:INFLUENCES {class: c.key, selected: true}]->(m:Neuron)\n"
        "RETURN n, i, m"
    )


def literal(text: str) -> str:
    """Text as a string literal of Cypher. To be shown, never run from here."""
    escapes = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return "'" + "".join(escapes.get(letter, letter) for letter in text) + "'"
