from __future__ import annotations

import io

import pytest
from rich.console import Console

from summit_graph.progress import LineProgress, duration, plural, speed


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def made(terminal: bool = False) -> tuple[LineProgress, io.StringIO, Clock]:
    text, clock = io.StringIO(), Clock()
    console = Console(
        file=text,
        force_terminal=terminal,
        width=80,
        markup=False,
        highlight=False,
        _environ={"TERM": "xterm"},
    )
    return LineProgress(console, every=60, clock=clock), text, clock


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (86399, "1 d 0 h"),
        (100_000, "1 d 4 h"),
    ],
)
def test_durations_are_said_as_a_person_says_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "unit", "text"),
    [(1, "image", "1 image"), (0, "image", "0 images"), (1200, "class", "1,200 classes")],
)
def test_plurals(count: int, unit: str, text: str) -> None:
    assert plural(count, unit) == text


@pytest.mark.parametrize(
    ("count", "seconds", "text"),
    [
        (4120, 10, "412 images/s"),
        (123, 10, "12.3 images/s"),
        (5, 20, "0.25 images/s"),
        (12345, 1, "12,345 images/s"),
    ],
)
def test_speeds_have_three_digits(count: float, seconds: float, text: str) -> None:
    assert speed(count, seconds, "image") == text


def test_a_finished_stage_leaves_one_plain_line() -> None:
    progress, text, clock = made()
    with progress.stage("counting", 899, "image") as stage:
        for _ in range(899):
            stage.advance()
        clock.now += 2
        stage.note("3 left out")
    assert text.getvalue() == (
        "counting                   2.0 s  899 images, 450 images/s, 3 left out\n"
    )


def test_a_stage_without_a_count_says_how_long_it_took() -> None:
    progress, text, clock = made()
    with progress.stage("making the tables", None, "table"):
        clock.now += 0.31
    assert text.getvalue() == "making the tables          0.3 s\n"


def test_a_long_stage_adds_a_line_a_minute() -> None:
    progress, text, clock = made()
    with progress.stage("counting", 1000, "image") as stage:
        for _ in range(10):
            clock.now += 30
            stage.advance(100)
    lines = text.getvalue().splitlines()
    assert [line.split("s  ", 1)[1] for line in lines] == [
        "200 of 1,000 images, 4 min 0 s left, 3.33 images/s",
        "400 of 1,000 images, 3 min 0 s left, 3.33 images/s",
        "600 of 1,000 images, 2 min 0 s left, 3.33 images/s",
        "800 of 1,000 images, 1 min 0 s left, 3.33 images/s",
        "1,000 images, 3.33 images/s",
    ]


def broken_off(progress: LineProgress, title: str, total: int | None, done: int) -> None:
    with progress.stage(title, total, "image") as stage:
        stage.advance(done)
        raise KeyboardInterrupt


def test_a_stage_that_breaks_off_says_where() -> None:
    progress, text, _ = made()
    with pytest.raises(KeyboardInterrupt):
        broken_off(progress, "counting", 1000, 312)
    assert text.getvalue().endswith("stopped after 312 of 1,000 images\n")


def test_a_stage_of_unknown_size_that_breaks_off() -> None:
    progress, text, _ = made()
    with pytest.raises(ValueError, match="x"), progress.stage("tracing", None, "layer"):
        raise ValueError("x")
    assert text.getvalue().split() == ["tracing", "0.0", "s", "stopped"]


def test_warnings_are_one_line_however_long_and_keep_brackets() -> None:
    progress, text, _ = made()
    progress.warn("[bold] " + "word " * 40)
    assert text.getvalue().startswith("Warning: [bold] word word")
    assert text.getvalue().count("\n") == 1


def test_a_terminal_has_a_bar_while_it_runs_and_a_line_afterwards() -> None:
    progress, text, clock = made(terminal=True)
    with progress.stage("counting", 200, "image") as stage:
        stage.advance(50)
        progress.warn("mind this")
        clock.now += 1
        stage.advance(150)
    seen = text.getvalue()
    assert "━" in seen
    assert "%" in seen
    assert "Warning: mind this" in seen
    assert "counting                   1.0 s  200 images, 200 images/s" in seen
    assert "\x1b[?25h" in seen, "the cursor has to come back"


def test_a_terminal_gets_its_cursor_back_after_an_error() -> None:
    progress, text, _ = made(terminal=True)
    with pytest.raises(ValueError, match="x"), progress.stage("counting", 9, "image"):
        raise ValueError("x")
    assert "stopped after 0 of 9 images" in text.getvalue()
    assert text.getvalue().rindex("\x1b[?25h") > text.getvalue().rindex("\x1b[?25l")


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=80, _environ={"TERM": "dumb"})
    with LineProgress(console).stage("ranking", 10, "class") as stage:
        stage.advance(10)
    assert text.getvalue() == "ranking                    0.0 s  10 classes\n"
