"""Run the notebooks and write their outputs anew: `python scripts/run_notebooks.py [NAME …]`.

1. Each notebook runs top to bottom in one temporary folder, in their order, so that a later one
   finds what an earlier one made. Nothing is left beside the notebooks.
2. Outputs are cleaned: what a web page cannot show (widgets, whose picture stands in the next
   cell) and what differs from run to run (times, versions, the order of messages) is left out, and
   pictures are packed.
3. A notebook is written only if it ran to its end.

`02` and `04` need SUMMIT_GRAPH_NOTEBOOK_DATA, and `03` a Neo4j: `summit-graph db up`. What each
expects is said in `notebooks/README.md`.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
LARGEST = 700_000
"""Bytes of a notebook."""

_WIDGET = "application/vnd.jupyter.widget-view+json"
_PACKED = 100_000
"""Bytes of a picture above which it is written with 256 colours."""

_SECONDS = 1800
"""For a cell."""


def run(notebook: Any, folder: Path, environment: Mapping[str, str] | None = None) -> Any:
    """Runs a notebook in a folder, by a kernel of this environment; its cells get their outputs.

    environment: of the kernel; None for this process's own. Raises: CellExecutionError.
    """
    client = NotebookClient(
        notebook,
        timeout=_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        store_widget_state=False,
    )
    return client.execute(env=dict(os.environ if environment is None else environment))


def cleaned(notebook: Any) -> Any:
    """A copy of a notebook that ran, with what is worth keeping."""
    kept = nbformat.from_dict(
        {
            "nbformat": 4,
            "nbformat_minor": 5,
            "metadata": {
                "kernelspec": {
                    "display_name": "Python 3",
                    "language": "python",
                    "name": "python3",
                },
                "language_info": {"name": "python"},
            },
            "cells": [],
        }
    )
    count = 0
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        own = {"id": cell.id, "metadata": {"tags": tags} if tags else {}, "source": cell.source}
        if cell.cell_type == "code":
            count += 1
            own |= {"execution_count": count, "outputs": _outputs(cell.outputs, count)}
        kept.cells.append(nbformat.from_dict({"cell_type": cell.cell_type, **own}))
    return kept


def _outputs(outputs: Sequence[Any], count: int) -> list[dict[str, Any]]:
    """The outputs of a cell: text in one piece, packed pictures, no widgets."""
    kept: list[dict[str, Any]] = []
    for output in outputs:
        if output.output_type == "stream":
            if kept and kept[-1].get("name") == output.name:
                kept[-1]["text"] += output.text
            else:
                kept.append({"output_type": "stream", "name": output.name, "text": output.text})
            continue
        data = dict(output.data)
        if _WIDGET in data:
            continue
        if "image/png" in data:
            data["image/png"] = _packed(data["image/png"])
        own = {"output_type": output.output_type, "data": data, "metadata": {}}
        if output.output_type == "execute_result":
            own["execution_count"] = count
        kept.append(own)
    return kept


def _packed(picture: str) -> str:
    """A picture as PNG, in base64, as small as it can be without looking worse."""
    written = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(picture))) as opened:
        pixels = opened.convert("RGB")
    pixels.save(written, "PNG", optimize=True)
    if len(written.getvalue()) > _PACKED:
        written = io.BytesIO()
        pixels.quantize(256, dither=Image.Dither.NONE).save(written, "PNG", optimize=True)
    return base64.b64encode(written.getvalue()).decode("ascii")


def main() -> None:
    """Run those that are named, or all."""
    parser = argparse.ArgumentParser(description="Run the notebooks and write their outputs anew.")
    parser.add_argument("names", nargs="*", help="the beginnings of their names: 01 04; all")
    names = parser.parse_args().names or [""]
    data = os.environ.get("SUMMIT_GRAPH_NOTEBOOK_DATA")
    environment = dict(os.environ)
    if data:
        environment["SUMMIT_GRAPH_NOTEBOOK_DATA"] = str(Path(data).resolve())
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(NOTEBOOKS.glob("*.ipynb")):
            if not path.name.startswith(tuple(names)):
                continue
            notebook = cleaned(run(nbformat.read(path, as_version=4), Path(folder), environment))
            text = nbformat.writes(notebook)
            if len(text.encode()) > LARGEST:
                raise SystemExit(f"{path.name} would have {len(text.encode()):,} bytes.")
            if folder in text:
                raise SystemExit(f"{path.name} would say where it ran: {folder}")
            nbformat.write(notebook, path)
            print(f"{path.name}: {len(text.encode()):,} bytes")


if __name__ == "__main__":
    main()
