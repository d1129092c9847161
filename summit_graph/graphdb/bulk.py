"""Loads an atlas with `neo4j-admin database import`, for graphs of many millions of edges.

1. The rows of `rows.GraphRows` are written to files, one for each kind of node and relationship, as
   CSV or Parquet. Nodes are told apart by number, so that a relationship is a few digits. The
   files' columns are typed; a null is an empty field, an empty text a quoted one.
2. The import makes a whole new database of these files, under a name of its own. So it can be cut
   off anywhere, and only a finished one takes the place of the local server's database, which has
   to be empty: one that holds anything is refused. The server is stopped meanwhile.
3. Constraints and indexes are made at last, by the server: the import of Community makes none.

For another server there are the files and the command. The graph is the same as over Bolt.
"""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from summit_graph.atlas.atlas import Atlas
from summit_graph.errors import DatabaseError, ServerError, UsageError
from summit_graph.graphdb import server
from summit_graph.graphdb.connection import Connection, connect, opened, read_session, write_session
from summit_graph.graphdb.load import (
    LoadReport,
    first_query,
    make_indexes,
    nodes_of,
    reading,
    relationships_of,
)
from summit_graph.graphdb.model import END, INDEXES, START, Node
from summit_graph.graphdb.rows import GraphRows, Kind
from summit_graph.graphdb.server import Distribution
from summit_graph.reporting import Progress, Reports, Stage

FORMATS = ("csv", "parquet")
"""What the import reads."""

SCHEMA = "schema.cypher"
"""The file with the constraints and indexes, beside those of the rows."""

_DATABASE = "neo4j"
"""The database of a Community server."""

_NEW = "summitgraphimport"
"""What a database is called while it is being imported."""

_FOLDER = Path("import", "summit-graph")
"""In the server's home: the files of an import that goes on."""

_TYPES = {
    pa.string(): "string",
    pa.int64(): "long",
    pa.float64(): "double",
    pa.bool_(): "boolean",
    pa.list_(pa.int64()): "long[]",
    pa.list_(pa.string()): "string[]",
}

_DELIMITERS = ";|\x1f\x1e\x1d\x1c"
"""Characters that may part the items of a list: the first that is in no layer's name does."""


@dataclass(frozen=True)
class Prepared:
    """Files for an import into another server.

    Attributes:
        folder: where they are.
        command: to run in that folder, while the other server is stopped. It refuses a database
            that exists; `--overwrite-destination` lets it delete that one.
        schema: Cypher to run once the server is started again: constraints and indexes.
        nodes: label -> how many.
        relationships: type -> how many.
        bytes: of all files.
    """

    folder: Path
    command: str
    schema: Path
    nodes: dict[str, int]
    relationships: dict[str, int]
    bytes: int


def bulk_load(
    atlas: Atlas | str | Path,
    home: Path | None = None,
    *,
    edges: str = "graph",
    form: str = "csv",
    progress: Progress | None = None,
    distribution: Distribution = server.NEO4J,
) -> LoadReport:
    """Imports an atlas into the empty database of the local server, and starts the server again.

    Args:
        atlas: a ranked atlas, or its folder.
        home: the local server's folder; None for the default one. It is made if it is not there.
        edges: as `load.load` takes it.
        form: one of `FORMATS`, of the files between.
        progress: where to report; None is silent.
        distribution: the Neo4j to run.

    Raises:
        AtlasError: the atlas cannot be read, or is not ranked.
        DatabaseError: the database holds something else; it is left as it is.
        ServerError: the server cannot be started or stopped, or the import fails; the database is
            empty as before.
        UsageError: `edges` or `form` is none of those.
    """
    started = time.monotonic()
    _check_form(form)
    reports = Reports(progress)
    with reading(atlas) as source:
        rows = GraphRows(source, edges)
        place = server.up(home, progress=progress, distribution=distribution).home
        already = _holds(_local(place), rows)
        if not already:
            server.down(place, progress)
            try:
                with _written(rows, place / _FOLDER, form, reports) as files:
                    _import(place, files, reports, distribution)
            except OSError as error:
                raise ServerError(
                    f"the database in {place} cannot be imported: {error.strerror or error}. "
                    "Make room, or name another folder with --home."
                ) from error
            finally:
                server.up(place, progress=progress, distribution=distribution)
        connection = _local(place)
        with opened(connection) as driver, write_session(driver, connection) as session:
            make_indexes(session)
        nodes, relationships = nodes_of(rows.counts), relationships_of(rows.counts)
        seconds = time.monotonic() - started
        return LoadReport(rows.key, nodes, relationships, seconds, already, first_query(rows))


def prepare_bulk(
    atlas: Atlas | str | Path,
    folder: str | Path,
    *,
    edges: str = "graph",
    form: str = "csv",
    progress: Progress | None = None,
) -> Prepared:
    """Writes the files for an import, and says with which command another server takes them in.

    Args:
        atlas: a ranked atlas, or its folder.
        folder: to write to; it is made, and is whole once it is there.
        edges: as `load.load` takes it.
        form: one of `FORMATS`.
        progress: where to report; None is silent.

    Raises:
        AtlasError: the atlas cannot be read, or is not ranked.
        UsageError: the folder exists already or cannot be made; `edges` or `form` is none of those.
    """
    _check_form(form)
    target = Path(folder).absolute()
    draft = target.with_name(f".{target.name}.new")
    if target.exists():
        raise UsageError(f"{target} exists already. Name a folder that does not, or remove it.")
    with reading(atlas) as source:
        rows = GraphRows(source, edges)
        try:
            with _written(rows, draft, form, Reports(progress)) as files:
                text = "".join(f"{index.text};\n" for index in INDEXES)
                (draft / SCHEMA).write_text(text, "utf-8")
                size = sum(path.stat().st_size for path in draft.iterdir())
                draft.rename(target)
        except OSError as error:
            raise UsageError(f"{target} cannot be written: {error.strerror or error}.") from error
        command = ["neo4j-admin", "database", "import", "full", _DATABASE, *files.arguments("")]
        return Prepared(
            folder=target,
            command=shlex.join(command),
            schema=target / SCHEMA,
            nodes=nodes_of(rows.counts),
            relationships=relationships_of(rows.counts),
            bytes=size,
        )


def _local(place: Path) -> Connection:
    """The connection to the server of a home; its port can be another after each start."""
    return connect(home=place, environment={})


def _check_form(form: str) -> None:
    if form not in FORMATS:
        raise UsageError(f"form is {form!r}; it has to be {' or '.join(map(repr, FORMATS))}.")


def _holds(connection: Connection, rows: GraphRows) -> bool:
    """Whether the database holds this model already; false if it is empty.

    Raises: DatabaseError if it holds something else.
    """
    with opened(connection) as driver, read_session(driver, connection) as session:
        if session.run("MATCH (n) RETURN n LIMIT 1").single() is None:
            return False
        found = session.run(
            "MATCH (m:Model {key: $key, fingerprint: $fingerprint, edges: $edges, loaded: true}) "
            "RETURN m.key",
            key=rows.key,
            fingerprint=rows.fingerprint,
            edges=rows.edges,
        )
        if found.single() is not None:
            return True
    raise DatabaseError(
        f"the database of the local server at {connection.uri} is not empty, and an import makes "
        "a new one. Load over Bolt instead (without --bulk), or import into another server's "
        "folder (--home); `summit-graph db remove` deletes this one with all that is in it."
    )


def _import(place: Path, files: _Files, reports: Progress, distribution: Distribution) -> None:
    """Imports files in a stopped server's home, and puts the new database in place."""
    arguments = files.arguments(f"{_FOLDER}/")
    with reports.stage("importing", None, "row"):
        server.admin(
            place,
            ["database", "import", "full", _NEW, "--overwrite-destination", *arguments],
            reports,
            distribution,
        )
    found = server.status(place)
    if found is not None and found.running:
        raise ServerError(
            f"the server in {place} was started during the import, so its database is left as it "
            "is. Import again, and leave the server alone meanwhile."
        )
    for folder in ("databases", "transactions"):
        there, new = (place / "data" / folder / name for name in (_DATABASE, _NEW))
        old = there.with_name(f"{_NEW}.old")
        shutil.rmtree(old, ignore_errors=True)
        if there.exists():
            there.rename(old)
        new.rename(there)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _written(rows: GraphRows, folder: Path, form: str, reports: Progress) -> Iterator[_Files]:
    """The files of an atlas in a folder, which is removed at the end if it is still there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with reports.stage("writing files", sum(rows.counts.values()), "row") as stage:
            files = _Files(rows, folder, form)
            for kind, tables in groupby(rows.tables(), key=lambda found: found[0]):
                files.write(kind, (table for _, table in tables), stage)
        yield files
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Files:
    """The files of an atlas's rows, in one folder, and how the import is to read them."""

    def __init__(self, rows: GraphRows, folder: Path, form: str) -> None:
        self.folder = folder
        self.form = form
        names = "".join(layer.name for layer in rows.atlas.layers)
        free = [sign for sign in _DELIMITERS if sign not in names]
        if not free:
            raise DatabaseError(
                f"the names of the layers of {rows.key!r} hold all signs that could part them in a "
                "file. Load over Bolt instead (without --bulk)."
            )
        self.delimiter = free[0]
        self.multiline = False
        self.options: list[tuple[str, str]] = []

    def arguments(self, prefix: str) -> list[str]:
        """The arguments of the import. prefix: of the files' names, as seen from where it runs."""
        return [
            *([f"--input-type={self.form}"] if self.form != "csv" else []),
            "--id-type=integer",
            f"--array-delimiter=U+{ord(self.delimiter):04X}",
            f"--multiline-fields={str(self.multiline).lower()}",
            *(f"--{option}={prefix}{name}" for option, name in self.options),
        ]

    def write(self, kind: Kind, tables: Iterator[pa.Table], stage: Stage) -> None:
        """Writes all rows of a kind; no file where there are none."""
        first = 0
        with ExitStack() as stack:
            writer = None
            for table in tables:
                flat = self._flat(kind, table, first)
                if not flat.num_rows:
                    continue
                writer = writer or stack.enter_context(self._writer(kind, flat.schema))
                writer.write_table(flat)
                first += flat.num_rows
                stage.advance(flat.num_rows)

    def _writer(self, kind: Kind, schema: pa.Schema) -> Any:
        name = kind.label if isinstance(kind, Node) else kind.type
        path = self.folder / f"{name.lower()}.{self.form}"
        option = "nodes" if isinstance(kind, Node) else "relationships"
        self.options.append((f"{option}={name}", path.name))
        if self.form == "csv":
            return pyarrow.csv.CSVWriter(path, schema)
        return pq.ParquetWriter(path, schema)

    def _flat(self, kind: Kind, table: pa.Table, first: int) -> pa.Table:
        """The columns of the files, named and typed as the import reads them.

        first: the number of the first of these nodes.
        """
        columns: dict[str, Any] = {}
        if isinstance(kind, Node):
            columns[f":ID({kind.label})"] = np.arange(first, first + table.num_rows)
        else:
            columns[f":START_ID({kind.start})"] = table.column(START)
            columns[f":END_ID({kind.end})"] = table.column(END)
        for field in kind.properties:
            column = table.column(field.name).cast(field.type)
            if pa.types.is_list(field.type):
                items = column.cast(pa.list_(pa.string()))
                column = pc.binary_join(items, self.delimiter)
            if pa.types.is_string(field.type):
                self._check_text(column)
            columns[f"{field.name}:{_TYPES[field.type]}"] = column
        return pa.table(columns)

    def _check_text(self, column: pa.ChunkedArray) -> None:
        self.multiline |= bool(pc.any(pc.match_substring_regex(column, r"[\r\n]")).as_py())
        if self.form == "parquet" and pc.any(pc.equal(column, "")).as_py():
            raise DatabaseError(
                "an import from Parquet loses empty texts, and this atlas has some. Use CSV "
                "(--format csv)."
            )
