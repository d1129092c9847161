"""How a command ends, how it is explained, and what it prints.

1. Errors become messages on standard error and exit codes in one place: wrong use ends with 2, a
   failure with 1, an interruption with 130.
2. Results go to standard output, as rich text or one JSON document.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup

from summit_graph.errors import SummitGraphError

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDEST = 100
_INTERRUPTED = 130
_KEPT = {"ingest": "shards", "demo": "shards", "features": "pictures"}
"""What a command that goes on where it was stopped has finished till then."""

_ASCII = {"█": "#", "░": ".", "→": "->", "×": "x", "…": "..."}


class Commands(TyperGroup):
    """The commands, with the one place where errors become messages and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _let_go_of_output()
            raise typer.Exit(1) from None
        except (Exception, KeyboardInterrupt) as error:
            if type(error).__module__.partition(".")[0] in ("typer", "click"):
                raise
            if ctx.params.get("debug"):
                traceback.print_exception(error)
            code, message = _told(error, ctx.invoked_subcommand)
            typer.echo(f"Error: {message}", err=True)
            raise typer.Exit(code) from None
        return result


class Command(TyperCommand):
    """A command whose help lists its options in groups."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The usage line's parts, required arguments without braces."""
        return [
            piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)
        ]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments and ungrouped options first, then each group under a head of its own."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                argument = param.param_type_name == "argument"
                head = getattr(param, "rich_help_panel", None) or "Options"
                group = groups.setdefault("Arguments" if argument else head, [])
                group.append((record[0], record[1].replace("\\[", "[")))  # Typer before 0.16
        for head, records in groups.items():
            if records:
                with formatter.section(head):
                    formatter.write_dl(records)


def _told(error: BaseException, command: str | None) -> tuple[int, str]:
    """Exit code and message of what ended a command."""
    if isinstance(error, SummitGraphError):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        if command not in _KEPT:
            return _INTERRUPTED, "stopped."
        return _INTERRUPTED, (
            f"stopped. Finished {_KEPT[command]} are kept: the same command goes on from there."
        )
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return 1, "the memory is used up. Try a smaller --batch-size, --memory or --workers."
    if isinstance(error, OSError) and error.strerror:
        place = f": {error.filename}" if error.filename else ""
        return 1, f"{error.strerror}{place}. Check the path, its permissions and the free space."
    name, text = type(error).__name__, str(error).strip().partition("\n")[0]
    return 1, (
        f"{name}{f': {text}' if text else ''}. This was not foreseen; to see where it happened, "
        "run the same command again with --debug."
    )


def _let_go_of_output() -> None:
    """Nobody reads standard output any more: what is still to be written goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_text(*parts: RenderableType) -> None:
    """Rich renderables to standard output: with colours on a terminal, else as plain text."""
    from rich.console import Console, Group

    console = Console(file=sys.stdout, markup=False, highlight=False, emoji=False)
    with console.capture() as captured:
        console.print(Group(*parts), width=min(console.width, WIDEST), crop=False)
    text = captured.get().replace("\N{NO-BREAK SPACE}", " ")
    if not console.is_terminal:
        text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error("summit-graph", _in_ascii)
        sys.stdout.reconfigure(errors="summit-graph")
    sys.stdout.write(text)
    sys.stdout.flush()


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """What an output that is not UTF-8 gets in place of a character that it does not have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(
        _ASCII.get(letter) or letter.encode("ascii", "backslashreplace").decode()
        for letter in letters
    ), error.end


def print_json(document: Any) -> None:
    """One JSON document, in ASCII, to standard output."""
    text = json.dumps(document, indent=2, allow_nan=False, default=os.fspath)
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def print_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Rows as CSV in UTF-8, with a head, to standard output. Lists and objects are JSON text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(
            json.dumps(value) if isinstance(value, (list, dict, bool)) else value for value in row
        )
    sys.stdout.flush()
    sys.stdout.buffer.write(text.getvalue().encode("utf-8", "backslashreplace"))
    sys.stdout.buffer.flush()
