from __future__ import annotations

import csv
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from graphdb import atlases, dump, servers
from graphdb.watching import Watching

from summit_graph.atlas.atlas import Atlas
from summit_graph.errors import DatabaseError, UsageError
from summit_graph.graphdb import server
from summit_graph.graphdb.bulk import FORMATS, bulk_load, prepare_bulk
from summit_graph.graphdb.connection import Connection, opened, read_session
from summit_graph.graphdb.load import load, unload
from summit_graph.graphdb.model import INDEXES, NODES, RELATIONSHIPS
from summit_graph.graphdb.rows import GraphRows


@pytest.mark.parametrize("form", FORMATS)
def test_the_files_hold_the_rows(form: str, tmp_path: Path) -> None:
    path = atlases.toy(tmp_path / "atlas")
    found = prepare_bulk(path, tmp_path / "files", form=form)
    wanted = dump.expected(path)
    assert sum(found.nodes.values()) == len(wanted.nodes)
    assert sum(found.relationships.values()) == wanted.relationships.total()
    files = {file.name: file for file in (tmp_path / "files").iterdir()}
    assert found.bytes == sum(file.stat().st_size for file in files.values())
    assert found.schema.read_text() == "".join(f"{index.text};\n" for index in INDEXES)
    for name in (*NODES, *RELATIONSHIPS):
        file = files[f"{name.lower()}.{form}"]
        rows = (
            len(list(csv.reader(file.open(newline="")))) - 1
            if form == "csv"
            else pq.read_table(file).num_rows
        )
        assert rows == {**found.nodes, **found.relationships}[name]


def test_the_command_names_every_file(tmp_path: Path) -> None:
    found = prepare_bulk(atlases.toy(tmp_path / "atlas"), tmp_path / "files", form="parquet")
    words = shlex.split(found.command)
    assert words[:5] == ["neo4j-admin", "database", "import", "full", "neo4j"]
    assert "--input-type=parquet" in words
    assert "--overwrite-destination" not in words
    named = {tuple(word.split("=")[1:]) for word in words if word.startswith(("--nodes", "--rel"))}
    assert named == {(name, f"{name.lower()}.parquet") for name in (*NODES, *RELATIONSHIPS)}


def test_values_in_csv(tmp_path: Path) -> None:
    """Null is nothing, empty text is quoted, numbers are read back as they were; a list is parted
    by a sign that is in no layer's name."""
    path = atlases.hostile(tmp_path / "atlas")
    prepare_bulk(path, tmp_path / "files")
    with Atlas.open(path) as atlas:
        (table,) = [table for kind, table in GraphRows(atlas).tables() if kind is NODES["Class"]]
    text = (tmp_path / "files" / "class.csv").read_bytes().decode()
    header, *rows = csv.reader(text.splitlines(keepends=True))
    assert header[:4] == [":ID(Class)", "key:string", "index:long", "name:string"]
    for row, wanted in zip(rows, table.to_pylist(), strict=True):
        found = dict(zip(header, row, strict=True))
        assert found["name:string"] == wanted["name"]
        assert found["synset:string"] == (wanted["synset"] or "")
        assert found["top1:double"] == ("" if wanted["top1"] is None else str(wanted["top1"]))
        assert (float(found["mass:double"]) if found["mass:double"] else None) == wanted["mass"]
        listed = found["probability:long[]"]
        assert ([int(n) for n in listed.split("|")] if listed else None) == wanted["probability"]
    assert '"",' in text
    assert "--multiline-fields=true" in prepare_bulk(path, tmp_path / "again").command
    plain = prepare_bulk(atlases.toy(tmp_path / "toy"), tmp_path / "plain")
    assert "--multiline-fields=false" in plain.command


def test_a_prepared_folder_is_whole_or_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = atlases.hostile(tmp_path / "atlas")
    with pytest.raises(DatabaseError, match=r"loses empty texts.*--format csv"):
        prepare_bulk(path, tmp_path / "files", form="parquet")
    assert [file.name for file in tmp_path.iterdir()] == ["atlas"]
    prepare_bulk(path, tmp_path / "files")
    with pytest.raises(UsageError, match="exists already"):
        prepare_bulk(path, tmp_path / "files")
    with pytest.raises(UsageError, match="cannot be written"):
        prepare_bulk(path, tmp_path / "atlas" / "atlas.json" / "files")
    with pytest.raises(UsageError, match="'csv' or 'parquet'"):
        prepare_bulk(path, tmp_path / "other", form="json")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    servers.needs_server()
    place = tmp_path / 'a "home"'
    yield place
    server.remove(place)


def same_as_over_bolt(path: Path, home: Path, form: str, **options: Any) -> None:
    """Imports an atlas, and loads it again over Bolt: the same, to the last property."""
    report = bulk_load(path, home, form=form, **options)
    connection = servers.local(home)
    imported = dump.dump(connection)
    dump.assert_same(imported, dump.expected(path))
    names = {row["name"]: row["state"] for row in indexes(connection)}
    assert {index.name for index in INDEXES} <= names.keys()
    assert set(names.values()) == {"ONLINE"}
    assert not report.already
    assert bulk_load(path, home, form=form, **options).already
    other = atlases.toy(path.with_name("other"), 12)
    with pytest.raises(DatabaseError, match=r"is not empty.*without --bulk"):
        bulk_load(other, home, form=form, **options)
    assert dump.dump(connection) == imported
    unload(report.key, connection)
    loaded = load(path, connection)
    assert dump.dump(connection) == imported
    assert (loaded.nodes, loaded.relationships) == (report.nodes, report.relationships)


def indexes(connection: Connection) -> list[Any]:
    with opened(connection) as driver, read_session(driver, connection) as session:
        return session.run("SHOW INDEXES").data()


@pytest.mark.slow
def test_imported_is_what_is_loaded(home: Path, tmp_path: Path) -> None:
    """Though another program takes the server's port meanwhile."""
    port = server.up(home).bolt_port
    with ExitStack() as stack:

        def take() -> None:
            stack.enter_context(socket.create_server(("127.0.0.1", port)))

        watching = Watching(1, take, "writing files")
        same_as_over_bolt(atlases.hostile(tmp_path / "atlas"), home, "csv", progress=watching)
    assert any(str(port) in warning for warning in watching.warnings)


@pytest.mark.slow
def test_a_killed_import_is_begun_anew(home: Path, tmp_path: Path) -> None:
    """The database is empty as before, and the next import is whole."""
    path = atlases.toy(tmp_path / "atlas")
    server.up(home)
    text = "import sys; from pathlib import Path; from summit_graph.graphdb.bulk import bulk_load; "
    text += "bulk_load(sys.argv[1], Path(sys.argv[2]))"
    with subprocess.Popen([sys.executable, "-c", text, path, home]) as loader:
        while not any((home / "data" / "databases").glob("*import*/neostore*")):
            assert loader.poll() is None
            time.sleep(0.01)
        for process in (psutil.Process(loader.pid), *psutil.Process(loader.pid).children()):
            process.kill()
    server.up(home)
    assert dump.dump(servers.local(home)).nodes == {}
    bulk_load(path, home)
    dump.assert_same(dump.dump(servers.local(home)), dump.expected(path))


@pytest.mark.slow
def test_imported_from_parquet_is_what_is_loaded(home: Path, tmp_path: Path) -> None:
    same_as_over_bolt(atlases.toy(tmp_path / "atlas"), home, "parquet")


@pytest.mark.slow
def test_imported_by_the_long_term_neo4j(home: Path, tmp_path: Path) -> None:
    path = atlases.hostile(tmp_path / "atlas")
    same_as_over_bolt(path, home, "csv", distribution=servers.LTS)
