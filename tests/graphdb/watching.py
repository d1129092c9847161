"""Progress that does something when a number of rows is in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Watching:
    """Calls `action` once, when `loading` has advanced `after` times. advances: so often it has.

    title: of the stage that is watched.
    """

    def __init__(self, after: int, action: Callable[[], object], title: str = "loading") -> None:
        self.after = after
        self.action = action
        self.title = title
        self.watched = False
        self.advances = 0
        self.warnings: list[str] = []

    @contextmanager
    def stage(self, title: str, total: int | None, unit: str) -> Iterator[Watching]:
        self.watched = title == self.title
        yield self
        self.watched = False

    def advance(self, count: int = 1) -> None:
        if self.watched:
            self.advances += 1
            if self.advances == self.after:
                self.action()

    def note(self, text: str) -> None:
        """Nobody reads."""

    def warn(self, message: str) -> None:
        self.warnings.append(message)
