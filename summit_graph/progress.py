"""How far the work is, for a person: one line a stage, on standard error.

1. On a terminal, a stage that runs has a bar, its speed and the time left; warnings go above it.
2. A finished stage leaves one line: its title, how long it took, what it did. Anywhere else than
   on a terminal that line is plain text, and a stage that takes minutes adds one now and then.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID
from rich.text import Text

TITLE = 21
"""Cells for a stage's title, so that the lines stand in columns."""


def duration(seconds: float) -> str:
    """A time as a person says it: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`, `1 d 4 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def plural(count: int, unit: str) -> str:
    """A number of things, from the name of one: `1 image`, `1,200 images`, `10 classes`."""
    if count == 1:
        return f"1 {unit}"
    return f"{count:,} {unit}{'es' if unit.endswith(('s', 'sh', 'ch', 'x')) else 's'}"


def speed(count: float, seconds: float, unit: str) -> str:
    """A speed, to three digits: `412 images/s`, `0.25 images/s`."""
    value = count / seconds
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {plural(2, unit).partition(' ')[2]}/s"


class LineStage:
    """A stage that runs; the `Stage` that the pipeline reports to."""

    def __init__(
        self,
        title: str,
        total: int | None,
        unit: str,
        clock: Callable[[], float],
        changed: Callable[[LineStage], None],
    ) -> None:
        self.title = title
        self.total = total
        self.unit = unit
        self.done = 0
        self.remark = ""
        self._clock = clock
        self._changed = changed
        self._started = clock()

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return self._clock() - self._started

    def advance(self, count: int = 1) -> None:
        """So many more units are done."""
        self.done += count
        self._changed(self)

    def note(self, text: str) -> None:
        """What the stage's line says once it is finished."""
        self.remark = text

    def finished(self) -> str:
        """The line that the stage leaves."""
        return self._line(plural(self.done, self.unit) if self.done else "")

    def running(self) -> str:
        """Its line while it runs and nobody watches a bar."""
        if self.total is None:
            return self._line(f"{plural(self.done, self.unit)} so far")
        left = (self.total - self.done) * self.seconds / max(self.done, 1)
        return self._line(
            f"{self.done:,} of {plural(self.total, self.unit)}, {duration(left)} left"
        )

    def stopped(self) -> str:
        """The line that the stage leaves where an error ends it."""
        if self.total is None:
            return self._line("stopped")
        return self._line(f"stopped after {self.done:,} of {plural(self.total, self.unit)}")

    def _line(self, what: str) -> str:
        seconds = self.seconds
        parts = [what] if what else []
        if self.done and seconds >= 0.5 and self.unit == "image":
            parts.append(speed(self.done, seconds, self.unit))
        if self.remark:
            parts.append(self.remark)
        return f"{self.title:<{TITLE}}{duration(seconds):>11}  {', '.join(parts)}".rstrip()


class _Now(ProgressColumn):
    """How much is done, how fast, and how long it will take."""

    def render(self, task: Task) -> Text:
        """`37 %  412 images/s  52 min 3 s left`, as far as it is known."""
        parts = []
        if task.total:
            parts.append(f"{int(100 * task.completed / task.total):3d} %")
        if task.speed and task.fields["unit"] == "image":
            parts.append(speed(task.speed, 1.0, task.fields["unit"]))
        if task.total and task.time_remaining is not None:
            parts.append(f"{duration(max(task.time_remaining, 0.0))} left")
        else:
            parts.append(duration(task.elapsed or 0.0))
        return Text("  ".join(parts))


class _Title(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.description:<{TITLE}}")


class LineProgress:
    """The `Progress` that the pipeline reports to, as lines and a bar on standard error.

    console: where to (None: standard error). every: seconds between two lines of one stage where
    there is no terminal. clock: seconds, rising.
    """

    def __init__(
        self,
        console: Console | None = None,
        every: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console or Console(file=sys.stderr, markup=False, highlight=False)
        self._every = every
        self._clock = clock
        self._said = clock()

    @contextmanager
    def stage(self, title: str, total: int | None, unit: str) -> Iterator[LineStage]:
        """One stage: its bar while it runs, its line when it ends or breaks off."""
        self._said = self._clock()
        live = self._console.is_terminal and not self._console.is_dumb_terminal
        if not live:
            yield from self._followed(
                LineStage(title, total, unit, self._clock, self._tell_sometimes)
            )
            return
        bars = Progress(
            _Title(),
            BarColumn(bar_width=20),
            _Now(),
            console=self._console,
            transient=True,
            redirect_stdout=False,
            refresh_per_second=5,
        )
        with bars:
            task = bars.add_task(title, total=total, unit=unit)
            yield from self._followed(
                LineStage(title, total, unit, self._clock, _moves(bars, task))
            )

    def _followed(self, stage: LineStage) -> Iterator[LineStage]:
        try:
            yield stage
        except BaseException:
            self._say(stage.stopped())
            raise
        self._say(stage.finished())

    def warn(self, message: str) -> None:
        """Something that the user should know, though the work goes on."""
        self._say(f"Warning: {message}", style="yellow")

    def _tell_sometimes(self, stage: LineStage) -> None:
        now = self._clock()
        if now - self._said >= self._every and stage.done != stage.total:
            self._said = now
            self._say(stage.running())

    def _say(self, text: str, style: str | None = None) -> None:
        self._console.print(Text(text, style or ""), soft_wrap=True)


def _moves(bars: Progress, task: TaskID) -> Callable[[LineStage], None]:
    def move(stage: LineStage) -> None:
        bars.update(task, completed=stage.done)

    return move
