"""The commands for pictures: feature visualisations, pages, and a class's graph for a paper.

They parse, call, and print; what they do is in `visualisation.py` and `view/`. `cli.py` puts them
beside the others.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from summit_graph import options
from summit_graph.console import print_json, print_text
from summit_graph.errors import UsageError

if TYPE_CHECKING:
    from summit_graph.atlas.atlas import Atlas
    from summit_graph.view.pages import PagesReport

_DPI = 200
"""Dots per inch of a PNG."""


def features(
    atlas: options.AtlasPlace = None,
    named: options.Atlas = None,
    neurons: options.PicturedNeurons = None,
    every: options.EveryNeuron = False,
    steps: options.Steps = 128,
    size: options.PictureSize = None,
    diverse: options.Diverse = 4,
    files: options.PictureFiles = options.PictureFormat.webp,
    seed: options.Seed = 0,
    model: options.AtlasModel = None,
    weights: options.AtlasWeights = None,
    device: options.Device = "auto",
    batch_size: options.PictureBatch = None,
    as_json: options.AsJson = False,
) -> None:
    """Make pictures of what excites each neuron.

    They are optimised with the model that the atlas was counted with; no image is needed. What is
    there already with the same steps, size and seed is kept, so an interrupted run goes on.
    """
    folder = options.atlas_folder(atlas, named)
    from summit_graph.progress import LineProgress

    progress = LineProgress()
    with progress.stage("loading PyTorch", None, "module"):
        from summit_graph.visualisation import visualise

    report = visualise(
        folder,
        model=model,
        weights=weights,
        neurons=options.patterns(neurons),
        every=every,
        steps=steps,
        size=size,
        diverse=diverse,
        format=files.value,
        seed=seed,
        device=device,
        batch_size=batch_size,
        progress=progress,
    )
    if as_json:
        print_json(asdict(report))
        return
    from summit_graph import show, show_pictures

    following = show.commands(f"summit-graph view {shlex.quote(str(folder))} --open")
    print_text(show_pictures.pictured(report), "", "Next:", *following)


def view(
    atlas: options.AtlasPlace = None,
    named: options.Atlas = None,
    name: options.ViewedClass = None,
    compare: options.ViewedCompare = None,
    out: options.PagesFolder = None,
    open_page: options.Open = False,
    serve: options.Serve = False,
    port: options.ServedPort = 0,
    examples: options.ShowExamples = True,
    svg: options.Svg = None,
    png: options.Png = None,
    pdf: options.Pdf = None,
    least: options.Least = 0.0,
    as_json: options.AsJson = False,
) -> None:
    """Write pages that show an atlas, or one class as a file.

    The pages open by double click, without a server or a network.
    """
    files = {kind: file for kind, file in (("svg", svg), ("png", png), ("pdf", pdf)) if file}
    if files and name is None:
        raise UsageError("--svg, --png and --pdf write the graph of one class: add --class CLASS.")
    if compare and name is None:
        raise UsageError("--compare OTHER compares a class with another: add --class CLASS.")
    if as_json and serve:
        raise UsageError("--serve goes on until it is interrupted, so there is no --json with it.")
    folder = options.atlas_folder(atlas, named)
    from summit_graph.atlas.atlas import Atlas

    with Atlas.open(folder) as opened:
        if files:
            _write_figures(opened, str(name), compare, files, least)
            if as_json:
                print_json({"files": list(files.values())})
            else:
                print_text(*(str(file) for file in files.values()))
            return
        state = _state(opened, name, compare)
        report = pages(opened, out or pages_folder(folder), examples)
    if as_json:
        print_json(asdict(report))
    else:
        from summit_graph import show_pictures

        print_text(show_pictures.written(report))
    if not (serve or open_page):
        return
    from summit_graph.view import serving

    if not serve:
        serving.open_page(report.index, state)
        return
    serving.serve(
        report.folder,
        port=port,
        open_browser=open_page,
        state=state,
        tell=lambda address: print_text("", "Served until Ctrl-C:", f"  {address}"),
    )


def pages(atlas: Atlas, out: Path, examples: bool = True) -> PagesReport:
    """Writes the pages of an atlas, with progress."""
    from summit_graph.progress import LineProgress
    from summit_graph.view.pages import write_pages

    return write_pages(atlas, out, examples=examples, progress=LineProgress())


def pages_folder(atlas: Path) -> Path:
    """Where an atlas's pages are kept if nothing else is said: `digits.pages` of `digits.atlas`."""
    place = atlas.resolve()
    return place.with_name(f"{place.name.removesuffix('.atlas')}.pages")


def _state(atlas: Atlas, name: str | None, compare: Sequence[str] | None) -> str:
    """The part of the page's address that chooses classes; empty without them.

    Raises: UnknownClass; UsageError if one picture cannot show them.
    """
    if name is None:
        return ""
    from summit_graph.view.scene import classes_of

    first, *others = classes_of(atlas, name, compare)
    beside = ",".join(str(other.index) for other in others)
    return f"class={first.index}&with={beside}" if beside else f"class={first.index}"


def _write_figures(
    atlas: Atlas,
    name: str,
    compare: Sequence[str] | None,
    files: dict[str, Path],
    least: float,
) -> None:
    from summit_graph.explain.pictures import Pictures
    from summit_graph.view.figure import attribution_figure, figure_bytes

    pictures = Pictures(atlas)
    figure = attribution_figure(atlas, name, compare=compare, pictures=pictures, least=least)
    for kind, file in files.items():
        file.write_bytes(figure_bytes(figure, kind, dpi=_DPI))
