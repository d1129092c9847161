"""What the commands for Neo4j say, set out for a person: the server, what was loaded, rows.

Every function takes what `graphdb/` returns and gives what Rich prints; none reads or prints.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from summit_graph.progress import duration, plural
from summit_graph.show import plain

if TYPE_CHECKING:
    from summit_graph.graphdb.bulk import Prepared
    from summit_graph.graphdb.load import Estimate, LoadReport, UnloadReport
    from summit_graph.graphdb.queries import Query, Result
    from summit_graph.graphdb.server import Server


def server(found: Server, password: str | None = None) -> RenderableType:
    """A local server: whether it runs, and how it is reached. password: shown if it is given."""
    table = _facts()
    if found.running:
        table.add_row("Neo4j Browser", found.browser_url)
        table.add_row("address", found.bolt_uri)
        table.add_row("user", "neo4j")
        table.add_row("password", password or f"in {found.password_file}")
    table.add_row("folder", str(found.home))
    state = f"runs (process {found.pid})" if found.running else "does not run: summit-graph db up"
    return Group(Text(f"Neo4j {found.version} {state}.", "bold"), table)


def estimated(size: Estimate) -> str:
    """What a load will make, before it starts."""
    nodes, relationships = sum(size.nodes.values()), sum(size.relationships.values())
    return (
        f"{plural(nodes, 'node')} and {plural(relationships, 'relationship')}, about "
        f"{size.bytes / 1e6:,.0f} MB in the database"
    )


def loaded(report: LoadReport, browser: str | None) -> RenderableType:
    """What is in the database now, and what to do with it. browser: Neo4j Browser's address."""
    nodes, relationships = sum(report.nodes.values()), sum(report.relationships.values())
    head = f"{plain(report.key)} {'was in Neo4j already' if report.already else 'is in Neo4j'}: "
    head += f"{plural(nodes, 'node')} and {plural(relationships, 'relationship')}"
    head += "." if report.already else f", in {duration(report.seconds)}."
    table = _facts()
    table.add_row("nodes", _counted(report.nodes))
    table.add_row("relationships", _counted(report.relationships))
    where = f"Neo4j Browser ({browser})" if browser else "Neo4j Browser"
    return Group(
        Text(head, "bold"),
        table,
        "",
        Text(f"Paste this into {where} to see an attribution graph:"),
        "",
        Text(report.first_query, no_wrap=True, overflow="ignore"),
        "",
        Text("More queries: summit-graph query"),
    )


def prepared(files: Prepared) -> RenderableType:
    """The files for an import, and how they are imported elsewhere."""
    nodes, relationships = sum(files.nodes.values()), sum(files.relationships.values())
    return Group(
        Text(
            f"{files.folder}: {plural(nodes, 'node')} and {plural(relationships, 'relationship')}, "
            f"{files.bytes / 1e6:,.0f} MB.",
            "bold",
        ),
        Text("Take the folder to the server, stop it, and run there, in that folder:"),
        "",
        Text(files.command, no_wrap=True, overflow="ignore"),
        "",
        Text(f"Then start it again and run the statements of {files.schema.name}."),
    )


def unloaded(report: UnloadReport) -> RenderableType:
    """What was removed from the database."""
    return Text(
        f"{plain(report.key)} is no longer in Neo4j: {plural(report.nodes, 'node')} and "
        f"{plural(report.relationships, 'relationship')} removed in {duration(report.seconds)}.",
        "bold",
    )


def queries(known: Sequence[Query]) -> RenderableType:
    """The queries there are, with what each answers."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for query in known:
        table.add_row(query.name, query.summary)
    return table


class Rows:
    """The rows of a query: a table, or one row after the other where a table is too wide."""

    def __init__(self, result: Result) -> None:
        self.columns = result.columns
        self.values = result.plain()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """What is printed, by the width that there is."""
        cells = [[_cell(value) for value in row] for row in self.values]
        widths = [max(map(cell_len, column)) for column in zip(self.columns, *cells, strict=True)]
        if sum(widths) + 2 * len(widths) <= options.max_width:
            table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
            for number, name in enumerate(self.columns):
                table.add_column(name, justify="right" if self._numeric(number) else "left")
            for row in cells:
                table.add_row(*row)
            yield table
        else:
            for row in cells:
                facts = _facts()
                for name, text in zip(self.columns, row, strict=True):
                    facts.add_row(name, text)
                yield facts
                yield ""
        yield Text(plural(len(cells), "row"), "dim")

    def _numeric(self, number: int) -> bool:
        values = [row[number] for row in self.values if row[number] is not None]
        return bool(values) and all(isinstance(value, (int, float)) for value in values)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, dict)):
        return plain(json.dumps(value, ensure_ascii=False))
    return plain(str(value))


def _facts() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _counted(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in numbers.items() if count)
