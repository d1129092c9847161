"""What the commands for pictures say, set out for a person: feature visualisations and pages.

Every function takes what the library returns and gives what Rich prints; none reads or prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from summit_graph.progress import duration, plural
from summit_graph.show import commands, plain

if TYPE_CHECKING:
    from summit_graph.view.pages import PagesReport
    from summit_graph.visualisation import FeatureReport


def pictured(report: FeatureReport) -> RenderableType:
    """The feature visualisations that were made, and what they excite."""
    head = f"{plural(report.neurons, 'neuron')} of {plain(str(report.atlas))}, "
    head += f"{plural(report.pictures, 'picture')}: "
    head += f"{report.made:,} made in {duration(report.seconds)}" if report.made else "none made"
    head += f", {report.kept:,} were there." if report.kept else "."
    lines = [Text(head, "bold")]
    if report.compared:
        lines.append(
            Text(
                f"For {report.stronger:,} of {report.compared:,} the picture excites the neuron "
                "more than any image of the data set does."
            )
        )
    if report.weaker:
        lines.append(Text(f"Not for {_some(report.weaker)}: more --steps may help."))
    if report.dead:
        lines.append(Text(f"No picture excites {_some(report.dead)}."))
    return Group(*lines)


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return plain(", ".join(names[:most])) + more


def written(report: PagesReport) -> RenderableType:
    """The pages that were written, and the file to open."""
    size = f"{report.bytes / 1e6:,.1f} MB"
    pictured = (
        f"{report.pictured:,} of {plural(report.neurons, 'neuron')} have a feature visualisation."
        if report.neurons
        else "No class has an attribution graph."
    )
    if report.neurons and report.pictured < report.neurons:
        pictured += " `summit-graph features` makes the others."
    return Group(
        Text(f"Pages of {plural(report.classes, 'class')}, {size}. {pictured}"),
        Text("Open this file in a browser:"),
        *commands(plain(str(report.index))),
    )
