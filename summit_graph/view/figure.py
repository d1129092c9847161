"""Attribution graphs as figures for papers, slides and notebooks: SVG, PNG, PDF.

1. `scene` says what is shown and where; the figure draws it with the colours of `appearance`.
2. Rows go from the first layer at the bottom to the last on top, each with its name at the left. A
   neuron is a square with its feature visualisation, or a tile with its channel number; a curve
   between two is an influence.
3. Letters that DejaVu Sans lacks are taken from fonts installed on the machine. If none has them, a
   PNG and a PDF have boxes in their place, and a warning says so.
4. Nothing is set for other figures of the process, and no date is written: the same atlas gives the
   same file, but for letters from other fonts.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from unicodedata import category

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.patches import FancyBboxPatch
from matplotlib.path import Path as Curve
from matplotlib.textpath import text_to_path
from PIL import Image

from summit_graph.atlas.atlas import Atlas
from summit_graph.atlas.interface import Graphs
from summit_graph.errors import UsageError
from summit_graph.explain.pictures import Pictures
from summit_graph.view import appearance
from summit_graph.view.scene import (
    Scene,
    SceneNeuron,
    described,
    joined,
    pictures_of,
    scene,
)

_POINTS = 0.6
"""Points of a pixel of the scene, where no width is asked for: the smallest print has 5.4 pt."""

_MARGIN = 24.0
_NARROWEST = 420.0
_BEHIND_LABELS = 18.0
_ABOVE_LEGEND = 32.0

_TITLE, _LABEL, _NUMBER, _SMALL = 19.0, 12.0, 11.0, 10.0
_LINE = 1.35
"""Height of a line of text, by its size."""

_TEXT, _QUIET, _TILE, _ROW = "#1F2933", "#52606D", "#F1F4F7", "#E4E9EE"


_CONTROL = {"Cc", "Cs", "Zl", "Zp"}

_FONT = "DejaVu Sans"
_MEANINGLESS = ("Last Resort", "LastResort", ".LastResort", "STIXNonUnicode")
"""How the names of fonts begin whose glyphs do not show the letters."""


class AttributionFigure(Figure):
    """A matplotlib figure that notebooks show without pyplot.

    missing: letters of its texts that no installed font has, until it was warned of them.
    """

    missing = ""

    def _repr_png_(self) -> bytes:
        return figure_bytes(self, "png")


def attribution_figure(
    graphs: Graphs,
    name: str | int,
    *,
    compare: str | int | Sequence[str | int] | None = None,
    pictures: Pictures | Atlas | str | Path | None = None,
    least: float = 0.0,
    width: float | None = None,
    title: bool = True,
) -> AttributionFigure:
    """The attribution graph of a class as a figure, or of up to four classes in one picture.

    graphs: an atlas or a `GraphDB`. name, compare: a class, and one or more beside it, each as
    `graphs.find` takes it. pictures: the atlas, or the folder, that has the feature visualisations;
    None: `graphs`, if it is an atlas. A neuron without one is a tile with its channel number.
    least: the weakest influence shown, as a share of the strongest in the class's graph, 0 to 1.
    width: inches; None: as wide as its neurons need. title: whether the class's name and size stand
    on top.
    Raises: UnknownClass; AtlasError if the atlas is not ranked; UsageError if there are more than
    four classes or one is there twice, if `least` is no share, or if the width is not above 0.
    """
    if not 0 <= least <= 1:
        raise UsageError(f"least is {least}: it has to be between 0 and 1.")
    shown = scene(graphs, name, compare).without(least=least)
    return scene_figure(shown, pictures=pictures_of(graphs, pictures), width=width, title=title)


def scene_figure(
    shown: Scene,
    *,
    pictures: Pictures | None = None,
    width: float | None = None,
    title: bool = True,
) -> AttributionFigure:
    """A scene as a figure; see `attribution_figure`."""
    if width is not None and not width > 0:
        raise UsageError(f"the width is {width}: it has to be above 0 inches.")
    labels = max((_width(row.layer, _LABEL) for row in shown.rows), default=0.0)
    left = _MARGIN + labels + _BEHIND_LABELS
    whole = max(left + shown.width + _MARGIN, _NARROWEST)
    left += (whole - left - shown.width - _MARGIN) / 2
    heading = _heading(shown, whole - 2 * _MARGIN) if title else []
    top = _MARGIN + sum(size * _LINE for _, size, _ in heading) + (14.0 if heading else 0.0)
    legend = _legend(shown, whole - 2 * _MARGIN)
    height = top + shown.height + _ABOVE_LEGEND + len(legend) * _SMALL * 1.6 + _MARGIN

    points = _POINTS if width is None else width * 72 / whole
    figure = AttributionFigure(figsize=(whole * points / 72, height * points / 72), dpi=144)
    FigureCanvasAgg(figure)
    figure.suppressComposite = True
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    drawing = _Drawing(axes, points, left, top)

    y = _MARGIN
    for text, size, colour in heading:
        y += size * _LINE
        drawing.text(_MARGIN - left, y - size * 0.35 - top, text, size, colour, ha="left")
    for row in shown.rows:
        axes.plot(
            [left - 8, left + shown.width],
            [top + row.y] * 2,
            color=_ROW,
            linewidth=points,
            zorder=0,
        )
        drawing.text(-_BEHIND_LABELS, row.y, row.layer, _LABEL, _QUIET, ha="right", va="center")
    drawing.edges(shown)
    for neuron in shown.neurons:
        drawing.neuron(neuron, pictures)
    y = shown.height + _ABOVE_LEGEND
    for square, text in legend:
        drawing.legend(_MARGIN - left, y, square, text)
        y += _SMALL * 1.6
    axes.set_xlim(0, whole)
    axes.set_ylim(height, 0)
    axes.set_aspect("auto")
    figure.missing = "".join(sorted({x for text in axes.texts for x in _fonts(text.get_text())[1]}))
    return figure


def save_figure(figure: Figure, path: str | Path, *, dpi: float = 200) -> Path:
    """Writes a figure; the ending of the path says as what: .svg, .png or .pdf.

    dpi: dots per inch of a PNG. The text of SVG and PDF stays text. Warns once of letters that a
    PNG or a PDF cannot show.
    Raises: UsageError for another ending; OSError if it cannot be written.
    """
    target = Path(path)
    target.write_bytes(figure_bytes(figure, target.suffix[1:].lower(), dpi=dpi))
    return target


def figure_bytes(figure: Figure, kind: str, *, dpi: float = 144) -> bytes:
    """A figure as the bytes of a file. kind: svg, png or pdf. Raises: UsageError for another."""
    without = {
        "svg": {"Date": None, "Creator": None},
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }
    if kind not in without:
        raise UsageError(f"a figure cannot be written as {kind!r}: use .svg, .png or .pdf.")
    if kind != "svg" and isinstance(figure, AttributionFigure) and figure.missing:
        warnings.warn(
            f"No installed font has the letters {figure.missing}: they are boxes in PNG and PDF. "
            "Install a font that has them, or write SVG, where text stays text.",
            stacklevel=2,
        )
        figure.missing = ""
    images = [image for axes in figure.axes for image in axes.images]
    target = BytesIO()
    for image in images:
        # Drawings take a picture as it is; pixels are made from it with care.
        image.set_interpolation("antialiased" if kind == "png" else "none")
    with (
        matplotlib.rc_context(
            {"svg.fonttype": "none", "svg.hashsalt": "summit-graph", "pdf.fonttype": 42}
        ),
        _quiet(),
    ):
        figure.savefig(target, format=kind, dpi=dpi, metadata=without[kind])
    return target.getvalue()


class _Drawing:
    """Draws the parts of a scene; x and y are the scene's, from its upper left corner."""

    def __init__(self, axes: Axes, points: float, left: float, top: float) -> None:
        self.axes = axes
        self.points = points
        self.left = left
        self.top = top

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float,
        colour: str,
        ha: str = "center",
        va: str = "baseline",
        weight: str = "normal",
    ) -> None:
        self.axes.text(
            self.left + x,
            self.top + y,
            printable(text),
            fontsize=size * self.points,
            color=colour,
            ha=ha,
            va=va,
            weight=weight,
            family=list(_fonts(text)[0]),
            parse_math=False,
            zorder=4,
        )

    def edges(self, shown: Scene) -> None:
        """All influences, the strongest on top."""
        curves, colours, widths = [], [], []
        for edge in sorted(shown.edges, key=lambda edge: edge.strength):
            source, target = shown.neurons[edge.source], shown.neurons[edge.target]
            curves.append(
                self._curve(
                    (source.x, source.y - source.side / 2), (target.x, target.y + target.side / 2)
                )
            )
            colour = edge.colour if shown.compared else appearance.EDGE
            colours.append(to_rgba(colour, edge.opacity))
            widths.append(edge.width * self.points)
        collection = PathCollection(
            curves, facecolors="none", edgecolors=colours, linewidths=widths, zorder=1
        )
        self.axes.add_collection(collection, autolim=False)

    def _curve(self, start: tuple[float, float], end: tuple[float, float]) -> Curve:
        middle = (start[1] + end[1]) / 2
        corners = [start, (start[0], middle), (end[0], middle), end]
        vertices = [(self.left + x, self.top + y) for x, y in corners]
        return Curve(vertices, [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4])

    def neuron(self, neuron: SceneNeuron, pictures: Pictures | None) -> None:
        picture = None if pictures is None else pictures.feature(neuron.name)
        border = self._square(neuron.x, neuron.y, neuron.side, neuron.colour, 2.0, zorder=3)
        if picture is None:
            border.set_facecolor(_TILE)
            # Tiles of small neurons hold three figures at full size, four a little smaller.
            size = min(_NUMBER, neuron.side * 0.86 / max(1, len(str(neuron.channel))) / 0.636)
            self.text(neuron.x, neuron.y, str(neuron.channel), size, _TEXT, va="center_baseline")
        else:
            with Image.open(BytesIO(picture)) as opened:
                pixels = np.asarray(opened.convert("RGB"))
            x, y, half = self.left + neuron.x, self.top + neuron.y, neuron.side / 2
            image = self.axes.imshow(
                pixels, extent=(x - half, x + half, y + half, y - half), aspect="auto", zorder=2
            )
            border.set_facecolor("none")
            image.set_clip_path(border)
            self._tag(neuron.x, neuron.y + neuron.side / 2, str(neuron.channel))
        if neuron.shared:
            self._square(neuron.x, neuron.y, neuron.side - 9, neuron.colour, 1.6, zorder=3)

    def _square(
        self, x: float, y: float, side: float, colour: str, line: float, zorder: float
    ) -> FancyBboxPatch:
        rounding = min(7.0, side * 0.18)
        square = FancyBboxPatch(
            (self.left + x - side / 2, self.top + y - side / 2),
            side,
            side,
            boxstyle=f"round,pad=0,rounding_size={rounding}",
            facecolor="none",
            edgecolor=colour,
            linewidth=line * self.points,
            zorder=zorder,
        )
        self.axes.add_patch(square)
        return square

    def _tag(self, x: float, y: float, text: str) -> None:
        """A small label on the lower border of a picture."""
        self.axes.annotate(
            text,
            (self.left + x, self.top + y),
            fontsize=8.5 * self.points,
            color=_TEXT,
            ha="center",
            va="center_baseline",
            family=_FONT,
            parse_math=False,
            zorder=4,
            bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none"},
        )

    def legend(self, x: float, y: float, colour: str | None, text: str) -> None:
        if colour is not None:
            middle = y - _SMALL * 0.35
            self._square(x + 6, middle, 11, colour, 2.0, zorder=3)
            if colour == appearance.SHARED:
                self._square(x + 6, middle, 5, colour, 1.2, zorder=3)
            x += 18
        self.text(x, y, text, _SMALL, _QUIET, ha="left")


def _heading(shown: Scene, width: float) -> list[tuple[str, float, str]]:
    """Lines of (text, size, colour)."""
    lines = [(line, _TITLE, _TEXT) for line in _wrapped(joined(shown.names), _TITLE, width)]
    said = _wrapped(described(shown), _NUMBER, width)
    return lines + [(line, _NUMBER, _QUIET) for line in said]


def _legend(shown: Scene, width: float) -> list[tuple[str | None, str]]:
    """Lines of what stands for what: the colour of a square, and a text."""
    lines: list[tuple[str | None, str]] = []
    if shown.compared:
        only = [f"only in {name}" for name in shown.names]
        several = "in both" if len(only) == 2 else "in more than one"
        colours = [*appearance.CLASSES[: len(only)], appearance.SHARED]
        for colour, text in zip(colours, [*only, several], strict=True):
            wrapped = _wrapped(text, _SMALL, width - 18)
            lines.append((colour, wrapped[0]))
            lines.extend((None, "    " + line) for line in wrapped[1:])
    for text in (
        "Square: a neuron, larger the more images it is active in, with its channel number.",
        "Line: influence on the next layers above, wider the more images it is strong in.",
    ):
        lines.extend((None, line) for line in _wrapped(text, _SMALL, width))
    return lines


def _wrapped(text: str, size: float, width: float) -> Sequence[str]:
    """Lines of at most that many pixels, of words or of parts of very long ones."""
    text = printable(text)
    full = _width(text, size)
    if full <= width:
        return [text]
    characters = max(8, int(len(text) * width / full * 0.94))
    return textwrap.wrap(text, characters) or [text]


def printable(text: str) -> str:
    """A text without what no file of text may hold: control characters and ends of lines."""
    return "".join("\ufffd" if category(letter) in _CONTROL else letter for letter in text)


def _width(text: str, size: float) -> float:
    """Pixels of a line of text."""
    text = printable(text)
    font = FontProperties(family=list(_fonts(text)[0]), size=size)
    with _quiet():
        wide, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(wide)


def _fonts(text: str) -> tuple[tuple[str, ...], str]:
    """The families that a text is set in, DejaVu Sans first, and the letters that none has."""
    lacking = set(map(ord, printable(text))) - _letters(_FONT)
    return _fallback("".join(map(chr, sorted(lacking)))) if lacking else ((_FONT,), "")


@cache
def _fallback(lacking: str) -> tuple[tuple[str, ...], str]:
    """Families for letters that DejaVu Sans lacks, as `_fonts` gives them; reads many fonts."""
    families, left = [_FONT], set(map(ord, lacking))
    known = {entry.name for entry in fontManager.ttflist}
    for family in sorted(known, key=lambda name: ("Sans" not in name, name)):
        if not left:
            break
        if not family.startswith(_MEANINGLESS) and left & _letters(family):
            families.append(family)
            left -= _letters(family)
    return tuple(families), "".join(map(chr, sorted(left)))


@cache
def _letters(family: str) -> frozenset[int]:
    """The letters of a family, as code points; none if it cannot be used."""
    try:
        font = get_font(findfont(FontProperties(family=family), fallback_to_default=False))
        font.set_size(10.0, 72.0)
    except (OSError, RuntimeError, ValueError):
        # Unreadable, gone since the list was made, or of pixels alone.
        return frozenset()
    return frozenset(font.get_charmap())


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps matplotlib from warning of each missing letter, each time; `figure_bytes` warns."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from", UserWarning)
        yield
