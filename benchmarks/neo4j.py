"""How fast is an atlas in Neo4j, and how fast does it answer?

1. Over Bolt: `load`, beside the same rows in the plainest way, `UNWIND $rows AS row` over maps,
   each row finding its two nodes by key; the same batches, constraints and indexes.
2. Bulk: `bulk_load`, beside `neo4j-admin database import` alone on the same files.
3. Bytes on disk of the imported database, for `load.estimate`.
4. p50 and p95 of each query in `cypher/`, asked about classes and neurons drawn at random: of the
   published graphs where a folder with them is given, of the atlas where a query needs more.

Everything runs on servers of its own in temporary folders. Loads alternate, so that a machine that
slows down slows both; the figure to quote is the ratio.

    python benchmarks/neo4j.py --output benchmarks/neo4j.md [--atlas DIR] [--published FOLDER]

Without --atlas it is the atlas that `summit-graph demo` makes.
"""

from __future__ import annotations

import argparse
import platform
import random
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

sys.path.pop(0)  # This folder, where `neo4j` is this file and not the driver.

import neo4j
import pyarrow as pa

from summit_graph.atlas.atlas import Atlas
from summit_graph.atlas.summit import import_summit
from summit_graph.errors import SummitGraphError
from summit_graph.graphdb import server
from summit_graph.graphdb.bulk import bulk_load, prepare_bulk
from summit_graph.graphdb.connection import Connection, connect, opened, write_session
from summit_graph.graphdb.database import GraphDB
from summit_graph.graphdb.load import BATCH, batches, estimate, load, make_indexes, unload
from summit_graph.graphdb.model import END, INDEXES, NODES, RELATIONSHIPS, START, Node, Relationship
from summit_graph.graphdb.queries import names, query
from summit_graph.graphdb.rows import GraphRows

RAW = "Raw"
"""What the plain way puts before labels and types, to stand beside the loaded model."""


@contextmanager
def running(heap: str) -> Iterator[Path]:
    """The home of a server of its own."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        try:
            server.up(home, heap=heap)
            yield home
        finally:
            server.remove(home)


def local(home: Path) -> Connection:
    """The connection to the server of a home."""
    return connect(home=home, environment={})


def seconds(action: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def keyed(kind: Relationship, table: pa.Table, keys: Mapping[str, pa.StringArray]) -> pa.Table:
    """Rows of `GraphRows.tables` with the keys of the ends in place of their numbers."""
    for column, label in ((START, kind.start), (END, kind.end)):
        ends = keys[label].take(table.column(column).combine_chunks())
        table = table.set_column(table.column_names.index(column), column, ends)
    return table


def raw_load(session: neo4j.Session, rows: GraphRows) -> None:
    """The rows by `UNWIND` over maps, under labels and types of their own."""
    for index in INDEXES:
        session.run(_raw(index.text)).consume()
    session.run("CALL db.awaitIndexes()").consume()
    for kind, table in batches(rows, BATCH):
        if isinstance(kind, Node):
            text = f"UNWIND $rows AS row CREATE (n:{RAW}{kind.label}) SET n = row"
            maps = table.to_pylist()
        else:
            values = ", ".join(f"`{name}`: row.`{name}`" for name in kind.properties.names)
            text = (
                f"UNWIND $rows AS row MATCH (a:{RAW}{kind.start} {{key: row.a}}) "
                f"MATCH (b:{RAW}{kind.end} {{key: row.b}}) "
                f"CREATE (a)-[:{RAW}{kind.type} {{{values}}}]->(b)"
            )
            ends = {START: "a", END: "b"}
            columns = [ends.get(name, name) for name in table.column_names]
            maps = keyed(kind, table, rows.keys).rename_columns(columns).to_pylist()
        session.execute_write(lambda tx, text=text, maps=maps: tx.run(text, rows=maps).consume())


def _raw(text: str) -> str:
    for label in NODES:
        text = text.replace(f":{label})", f":{RAW}{label})")
    for type_ in RELATIONSHIPS:
        text = text.replace(f":{type_}]", f":{RAW}{type_}]")
    return text.replace("summit_graph_", "raw_")


def raw_clear(session: neo4j.Session) -> None:
    """Removes what `raw_load` made."""
    for label in NODES:
        session.run(
            f"MATCH (n:{RAW}{label})-[r]-() CALL (r) {{ DELETE r }} IN TRANSACTIONS OF 10000 ROWS"
        ).consume()
        session.run(f"MATCH (n:{RAW}{label}) DELETE n").consume()


def bolt(connection: Connection, path: Path, rounds: int) -> list[tuple[float, float]]:
    """Seconds of `load` and of the plain way, round by round; the last load stays."""
    found = []
    with (
        Atlas.open(path) as atlas,
        opened(connection) as driver,
        write_session(driver, connection) as session,
    ):
        rows = GraphRows(atlas)
        session.run(
            f"CREATE CONSTRAINT IF NOT EXISTS FOR (n:{RAW}Model) REQUIRE n.key IS UNIQUE"
        ).consume()
        session.run(f"MERGE (:{RAW}Model {{key: $key}})", key=rows.key).consume()
        for turn in range(rounds + 1):
            ours = seconds(lambda: load(atlas, connection))
            plain = seconds(lambda: raw_load(session, rows))
            if turn:
                found.append((ours, plain))
            raw_clear(session)
            session.run(f"MERGE (:{RAW}Model {{key: $key}})", key=rows.key).consume()
            if turn < rounds:
                unload(rows.key, connection)
        raw_clear(session)
    return found


class Bulk(NamedTuple):
    """Seconds of `bulk_load`, and of its parts alone; bytes of the database it makes."""

    whole: float
    writing: float
    importing: float
    size: int


def bulk(path: Path, heap: str) -> Bulk:
    """Imports an atlas into a home of its own, then once more without all around the import."""
    with running(heap) as home:
        whole = seconds(lambda: bulk_load(path, home))
        server.down(home)
        start = time.perf_counter()
        prepared = prepare_bulk(path, home / "import" / "files")
        writing = time.perf_counter() - start
        words = [word.split("=") for word in shlex.split(prepared.command)[1:]]
        command = [
            "=".join([*word[:2], f"import/files/{word[2]}"] if len(word) == 3 else word)
            for word in words
        ]
        importing = seconds(lambda: server.admin(home, [*command, "--overwrite-destination"]))
        store = home / "data" / "databases" / "neo4j"
        server.up(home)
        with opened(local(home)) as driver, write_session(driver, local(home)) as session:
            make_indexes(session)
        server.down(home)
        size = sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
    return Bulk(whole, writing, importing, size)


def arguments(database: GraphDB, draw: random.Random, needed: tuple[str, ...]) -> dict[str, Any]:
    """Parameters drawn at random: a class with a graph, and neurons of that graph."""
    record = draw.choice([record for record in database.classes if record.neurons])
    graph = database.attribution_graph(record.index)
    neuron = draw.choice(graph.neurons)
    others = [other for other in database.classes if other.neurons and other != record]
    values: Mapping[str, Any] = {
        "model": database.key,
        "other_model": database.key,
        "class": record.index,
        "classes": [record.index, draw.choice(others).index],
        "others": [draw.choice(others).index],
        "other": draw.choice(others).index,
        "neuron": neuron.name,
        "layer": neuron.layer,
        "name": record.name,
    }
    if "image" in needed:
        return {**values, "image": draw.choice(database.examples(neuron.name)).image}
    return dict(values)


def asked(
    databases: list[GraphDB], rounds: int, draw: random.Random
) -> Iterator[tuple[str, str, float, float]]:
    """Each query: of which model, and p50 and p95 of its seconds. The first model that has what
    the query needs is asked."""
    for name in names():
        for database in databases:
            try:
                times = [timed(database, name, draw) for _ in range(rounds + 2)][2:]
            except SummitGraphError:
                continue
            quantiles = statistics.quantiles(times, n=20, method="inclusive")
            yield name, database.key, quantiles[9], quantiles[18]
            break


def timed(database: GraphDB, name: str, draw: random.Random) -> float:
    """Seconds of one query with parameters drawn at random."""
    needed = tuple(each.name for each in query(name).parameters if each.required)
    drawn = arguments(database, draw, needed)
    given = {key: drawn[key] for key in needed}
    return seconds(lambda: database.run(name, given))


def measured(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    """The lines of the tables."""
    path = options.atlas or demo(folder / "demo")
    with Atlas.open(path) as atlas:
        rows = GraphRows(atlas)
        counts, key = rows.counts, rows.key
    number = sum(counts.values())
    with running(options.heap) as home, ExitStack() as stack:
        connection = local(home)
        status = server.status(home)
        assert status is not None
        yield (
            f"{options.machine}, Neo4j {status.version} with a heap of {options.heap}; the atlas "
            f"{key}: {number:,} nodes and relationships, {counts['INFLUENCES']:,} of them edges."
        )
        times = bolt(connection, path, options.rounds)
        databases = [opened_graph(stack, key, connection)]
        if options.published:
            import_summit(options.published, folder / "published")
            report = load(folder / "published", connection)
            databases.insert(0, opened_graph(stack, report.key, connection))
        answers = list(asked(databases, options.queries, random.Random(0)))
    ratios = [plain / ours for ours, plain in times]
    ours, plain = (statistics.median(column) for column in zip(*times, strict=True))
    found = bulk(path, options.heap)
    yield from ("", "| way | seconds | rows/s |", "|---|---|---|")
    for way, took in (
        ("`load`, over Bolt", ours),
        ("plain `UNWIND` of maps", plain),
        ("`load --bulk`, from a server that runs to one that runs", found.whole),
        ("of it, the files", found.writing),
        ("of it, `neo4j-admin database import`", found.importing),
    ):
        yield f"| {way} | {took:.1f} | {number / took:,.0f} |"
    yield ""
    yield (
        f"Plain `UNWIND` takes **{statistics.median(ratios):.2f}** times as long as `load` "
        f"({min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} rounds in turn). On disk "
        f"{found.size / 1e6:.0f} MB; `estimate` says {estimate(path).bytes / 1e6:.0f} MB."
    )
    yield from ("", f"Queries, {options.queries} runs each, classes and neurons drawn at random:")
    yield from ("", "| query | model | p50, ms | p95, ms |", "|---|---|---|---|")
    for name, model, half, most in answers:
        yield f"| `{name}` | {model} | {half * 1e3:.1f} | {most * 1e3:.1f} |"


def demo(folder: Path) -> Path:
    """The atlas that `summit-graph demo` makes."""
    from summit_graph import ingest
    from summit_graph.cli import DEMO_MODEL

    ingest(model=DEMO_MODEL, images="digits", atlas=folder)
    return folder


def opened_graph(stack: ExitStack, key: str, connection: Connection) -> GraphDB:
    """A model in the database."""
    return stack.enter_context(
        GraphDB.open(key, uri=connection.uri, user=connection.user, password=connection.password)
    )


def main() -> None:
    """Measures, and writes the tables."""
    parser = argparse.ArgumentParser(description="how fast an atlas is loaded and answers")
    parser.add_argument("--atlas", type=Path, help="default: the demo's")
    parser.add_argument("--published", type=Path, help="folder of published graphs, to be asked")
    parser.add_argument("--rounds", type=int, default=3, help="of loading, after one to warm up")
    parser.add_argument("--queries", type=int, default=20, help="runs of each query, 2 or more")
    parser.add_argument("--heap", default="1g")
    parser.add_argument("--machine", default=platform.machine(), help="what it runs on, in words")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.queries < 2:
        parser.error("--queries has to be at least 2: one run has no median.")
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for line in measured(options, Path(folder)):
            print(line, flush=True)
            lines.append(f"{line}\n")
    if options.output:
        options.output.write_text("".join(lines), "utf-8")


if __name__ == "__main__":
    main()
