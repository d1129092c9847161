"""How work reports itself while it runs, and what it reports in the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Stage(Protocol):
    """One step of the work, while it runs."""

    def advance(self, count: int = 1) -> None:
        """So many more units are done."""

    def note(self, text: str) -> None:
        """What the stage's line says once it is finished."""


class Progress(Protocol):
    """Where the work reports itself."""

    def stage(self, title: str, total: int | None, unit: str) -> AbstractContextManager[Stage]:
        """Begin a stage of `total` units (None if that is not known)."""

    def warn(self, message: str) -> None:
        """Something that the user should know, though the work goes on."""


class _Silent:
    """Progress that nobody watches."""

    @contextmanager
    def stage(self, title: str, total: int | None, unit: str) -> Iterator[Stage]:
        yield self

    def warn(self, message: str) -> None:
        """Warnings are in the report."""

    def advance(self, count: int = 1) -> None:
        """Nobody counts."""

    def note(self, text: str) -> None:
        """Nobody reads."""


class Reports:
    """Passes progress on and keeps the warnings for the report."""

    def __init__(self, progress: Progress | None):
        self._progress = progress or _Silent()
        self.messages: list[str] = []

    def stage(self, title: str, total: int | None, unit: str) -> AbstractContextManager[Stage]:
        return self._progress.stage(title, total, unit)

    def warn(self, message: str) -> None:
        self.messages.append(message)
        self._progress.warn(message)


@dataclass(frozen=True)
class LeftOut:
    """An image that could not be counted, and why."""

    path: str
    status: str


@dataclass(frozen=True)
class RankReport:
    """What a ranking found.

    Attributes:
        classes: classes with images.
        with_graph: those whose attribution graph has a neuron.
        empty: the names of the others.
        not_converged: classes whose PageRank did not converge.
        unconnected: per class, the layers that no edge reaches from an earlier one.
        unplaced: per layer, the classes that no neuron of it is active for, which its embedding
            leaves out.
        always_active: neurons active in nearly all images of nearly all classes.
        neurons, edges: least, mean and largest number over the classes with a graph.
    """

    classes: int
    with_graph: int
    empty: tuple[str, ...]
    not_converged: tuple[str, ...]
    unconnected: dict[str, tuple[str, ...]]
    unplaced: dict[str, tuple[str, ...]]
    always_active: tuple[str, ...]
    neurons: tuple[int, float, int]
    edges: tuple[int, float, int]


@dataclass(frozen=True)
class IngestReport:
    """What an ingest did.

    Attributes:
        atlas, key, model: which atlas, and of which model.
        images: how many images the atlas knows; `counted` of them are counted for a class,
            `without_class` are run and counted nowhere, `left_out` could not be read.
        new: images that this run counted.
        passed_over: files among the images that are none.
        top1, top5: over all labelled images, 0 to 1; None without labels.
        classes: classes with images.
        seconds, images_per_second: of the counting in this run (0 where nothing was new).
        warnings: what the user was told on the way.
    """

    atlas: Path
    key: str
    model: str
    images: int
    counted: int
    new: int
    without_class: int
    left_out: tuple[LeftOut, ...]
    passed_over: int
    top1: float | None
    top5: float | None
    classes: int
    seconds: float
    images_per_second: float
    warnings: tuple[str, ...]
    ranking: RankReport
