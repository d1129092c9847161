"""The commands for Neo4j: the local server, loading, and asking.

They parse, call, and print; what they do is in `graphdb/`. `cli.py` puts them beside the others.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from summit_graph import options
from summit_graph.console import (
    WIDEST,
    Command,
    Commands,
    print_csv,
    print_json,
    print_text,
)
from summit_graph.errors import ServerError, UsageError

if TYPE_CHECKING:
    from summit_graph.graphdb.load import LoadReport
    from summit_graph.graphdb.queries import Query, Result
    from summit_graph.graphdb.server import Server

db = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDEST},
)


@db.callback()
def database() -> None:
    """A local Neo4j server, with Neo4j Browser."""


# The local server


@db.command(cls=Command)
def up(
    home: options.Home = None,
    bolt_port: options.BoltPort = None,
    http_port: options.HTTPPort = None,
    heap: options.Heap = None,
    as_json: options.AsJson = False,
) -> None:
    """Start the server; the first time, fetch it and set it up.

    It listens on 127.0.0.1 alone. Where it runs already nothing changes.
    """
    size = options.size_in_bytes(heap, "--heap")
    from summit_graph.graphdb import server
    from summit_graph.progress import LineProgress

    found = server.up(
        home,
        bolt_port,
        http_port,
        None if size is None else f"{size // 2**20}m",
        LineProgress(),
    )
    _print_server(found, as_json, with_password=found.first_start and sys.stdout.isatty())


@db.command(cls=Command)
def status(
    home: options.Home = None,
    show_password: options.ShowPassword = False,
    as_json: options.AsJson = False,
) -> None:
    """Say whether the server runs, and where. Exit code 1 if it does not."""
    from summit_graph.graphdb import server

    found = server.status(home)
    if found is None:
        raise ServerError(
            f"there is no local server in {home or server.default_home()}. Set one up with "
            "`summit-graph db up`."
        )
    if show_password and not sys.stdout.isatty():
        raise UsageError(
            "the password is shown on a terminal only. A program reads it from "
            f"{found.password_file}."
        )
    _print_server(found, as_json, show_password)
    if not found.running:
        raise typer.Exit(1)


def _print_server(found: Server, as_json: bool, with_password: bool) -> None:
    if as_json:
        print_json(
            {
                "home": found.home,
                "running": found.running,
                "version": found.version,
                "uri": found.bolt_uri,
                "browser": found.browser_url,
                "user": "neo4j",
                "password_file": found.password_file,
            }
        )
        return
    from summit_graph import show_neo4j as texts

    print_text(texts.server(found, found.password() if with_password else None))


@db.command(cls=Command)
def down(home: options.Home = None) -> None:
    """Stop the server. Its data stays."""
    from summit_graph.graphdb import server
    from summit_graph.progress import LineProgress

    stopped = server.down(home, LineProgress())
    typer.echo("Neo4j is stopped; its data stays." if stopped else "No local Neo4j was running.")


@db.command(cls=Command)
def logs(home: options.Home = None, lines: options.LogLines = 40) -> None:
    """Print the end of the server's log."""
    from summit_graph.graphdb import server

    for line in server.log_tail(home, lines):
        typer.echo(line)
    typer.echo(f"All of it: {server.logs(home)}", err=True)


@db.command(cls=Command)
def remove(home: options.Home = None, yes: options.Yes = False) -> None:
    """Stop the server and remove its folder, with all data in it."""
    from summit_graph.graphdb import server

    place = home or server.default_home()
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"this removes {place} with all its data: say --yes.")
        typer.confirm(f"Remove {place} with all models loaded into it?", abort=True)
    from summit_graph.progress import LineProgress

    removed = server.remove(home, LineProgress())
    typer.echo(f"{place} is removed." if removed else f"There was no local server in {place}.")


# Loading


def load(
    atlas: options.AtlasPlace = None,
    named: options.Atlas = None,
    edges: options.LoadedEdges = options.Edges.graph,
    replace: options.Replace = False,
    batch: options.Batch = None,
    bulk: options.Bulk = False,
    prepare_only: options.PrepareOnly = None,
    form: options.BulkFiles = options.BulkFormat.csv,
    uri: options.Uri = None,
    user: options.User = None,
    database: options.Database = None,
    home: options.LocalHome = None,
    as_json: options.AsJson = False,
) -> None:
    """Put an atlas into Neo4j, beside the models that are there.

    Run again, it goes on where it was cut off; an atlas that is there already is left alone, one
    that has changed takes the place of its older self.
    """
    folder = options.atlas_folder(atlas, named)
    if prepare_only is not None and not bulk:
        raise UsageError("--prepare-only is about --bulk: give both.")
    if bulk and (uri or user or database or replace or batch):
        raise UsageError(
            "--bulk fills the empty database of the local server; --uri, --user, --database, "
            "--replace and --batch do not go with it. For another server there is --prepare-only."
        )
    from summit_graph.graphdb import bulk as files
    from summit_graph.progress import LineProgress

    progress = LineProgress()
    if prepare_only is not None:
        prepared = files.prepare_bulk(
            folder, prepare_only, edges=edges.value, form=form.value, progress=progress
        )
        if as_json:
            print_json(asdict(prepared))
            return
        from summit_graph import show_neo4j as texts

        print_text(texts.prepared(prepared))
        return
    if bulk:
        _announce(folder, edges.value)
        report = files.bulk_load(
            folder, home, edges=edges.value, form=form.value, progress=progress
        )
    else:
        report = load_over_bolt(
            folder, edges.value, replace, batch, uri=uri, user=user, database=database, home=home
        )
    if as_json:
        print_json(asdict(report))
    else:
        print_loaded(report, uri, home)


def check_reached(
    uri: str | None, user: str | None, database: str | None, home: Path | None
) -> None:
    """Before long work: the database that the options name answers. Raises: DatabaseError."""
    from summit_graph.graphdb.connection import connect, opened

    with opened(connect(uri, user, database, home)):
        pass


def load_over_bolt(
    folder: Path,
    edges: str = "graph",
    replace: bool = False,
    batch: int | None = None,
    *,
    uri: str | None = None,
    user: str | None = None,
    database: str | None = None,
    home: Path | None = None,
) -> LoadReport:
    """Loads an atlas into the database that the options name; says first how large it will be."""
    from summit_graph.graphdb import load as loading
    from summit_graph.graphdb.connection import connect
    from summit_graph.progress import LineProgress

    connection = connect(uri, user, database, home)
    _announce(folder, edges)
    return loading.load(
        folder, connection, edges=edges, replace=replace, batch=batch, progress=LineProgress()
    )


def _announce(folder: Path, edges: str) -> None:
    from summit_graph import show_neo4j as texts
    from summit_graph.graphdb.load import estimate

    typer.echo(texts.estimated(estimate(folder, edges)), err=True)


def print_loaded(report: LoadReport, uri: str | None, home: Path | None) -> None:
    """What a load did; with Neo4j Browser's address where the database is the local server's."""
    from summit_graph import show_neo4j as texts
    from summit_graph.graphdb import connection, server

    local = server.status(home)
    named = connection.address_of(uri)
    browser = local.browser_url if local and named in (None, local.bolt_uri) else None
    print_text(texts.loaded(report, browser))


def unload(
    model: options.ModelKey,
    uri: options.Uri = None,
    user: options.User = None,
    database: options.Database = None,
    home: options.LocalHome = None,
    as_json: options.AsJson = False,
) -> None:
    """Remove a model from Neo4j. Its atlas stays."""
    from summit_graph.graphdb import load as loading
    from summit_graph.graphdb.connection import connect
    from summit_graph.progress import LineProgress

    connection = connect(uri, user, database, home)
    report = loading.unload(model, connection, progress=LineProgress())
    if as_json:
        print_json(asdict(report))
        return
    from summit_graph import show_neo4j as texts

    print_text(texts.unloaded(report))


# Asking


def query(
    name: options.QueryName = None,
    parameters: options.Parameters = None,
    model: options.QueryModel = None,
    as_text: options.AsText = False,
    as_csv: options.AsCsv = False,
    as_json: options.AsJson = False,
    uri: options.Uri = None,
    user: options.User = None,
    database: options.Database = None,
    home: options.LocalHome = None,
) -> None:
    """Run one of the Cypher queries, or list them.

    Classes and neurons are named as in `show`. The same queries can be pasted into Neo4j Browser.
    """
    if as_text + as_csv + as_json > 1:
        raise UsageError("--text, --csv and --json are three ways to print: give one.")
    from summit_graph.graphdb import queries

    if name is None:
        _list_queries([queries.query(each) for each in queries.names()], as_json)
        return
    asked = queries.query(name)
    if as_text:
        typer.echo(asked.text.rstrip())
        return
    given = queries.values(asked, [_pair(text) for text in parameters or ()])
    result = _asked(asked, given, model, uri, user, database, home)
    if as_csv:
        print_csv(result.columns, result.plain())
    elif as_json:
        print_json([dict(zip(result.columns, row, strict=True)) for row in result.plain()])
    else:
        from summit_graph import show_neo4j as texts

        print_text(texts.Rows(result))


def _asked(
    asked: Query,
    given: dict[str, Any],
    model: str | None,
    uri: str | None,
    user: str | None,
    database: str | None,
    home: Path | None,
) -> Result:
    """A query's rows. One that concerns a model is asked of it, so that names become keys."""
    from summit_graph.graphdb import queries
    from summit_graph.graphdb.connection import connect, opened
    from summit_graph.graphdb.database import GraphDB

    if any(parameter.label for parameter in asked.parameters):
        with GraphDB.open(
            given.get("model") or model, uri=uri, user=user, database=database, home=home
        ) as graphs:
            return graphs.run(asked.name, given)
    connection = connect(uri, user, database, home)
    with opened(connection) as driver:
        return queries.run(driver, connection, asked, given)


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise UsageError(f"--param is {text!r}; it has to be NAME=VALUE, like class=three.")
    return name, value


def _list_queries(known: list[Query], as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {
                    "name": each.name,
                    "answers": each.summary,
                    "parameters": [
                        {
                            "name": parameter.name,
                            "type": str(parameter.type),
                            "required": parameter.required,
                            "default": parameter.default,
                            "meaning": parameter.meaning,
                        }
                        for parameter in each.parameters
                    ],
                    "columns": [
                        {"name": column.name, "type": str(column.type), "meaning": column.meaning}
                        for column in each.columns
                    ],
                    "needs": sorted(each.needs),
                }
                for each in known
            ]
        )
        return
    from summit_graph import show_neo4j as texts

    print_text(texts.queries(known))
