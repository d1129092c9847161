"""Made attribution graphs in the form in which the Summit authors published theirs."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

LAYERS = [
    "mixed3a", "mixed3b", "mixed4a", "mixed4b", "mixed4c", "mixed4d", "mixed4e", "mixed5a",
    "mixed5b",
]  # fmt: skip


def content(seed: int = 0) -> dict[str, Any]:
    """A made graph as a file holds it, the last layer first: two neurons a layer."""
    draw = random.Random(seed)
    found: dict[str, Any] = {}
    before: list[int] = []
    for layer in LAYERS:
        channels = draw.sample(range(200), 2)
        neurons = []
        for channel in channels:
            edges = [
                {"prev_channel": source, "inf": draw.randrange(1, 1300)}
                for source in before
                if draw.random() < 0.8
            ]
            strongest = [
                {"prev_channel": str(source), "inf": draw.randrange(1, 1300)}
                for source in (draw.sample(range(200), 3) if before else [])
            ]
            neurons.append(
                {
                    "channel": channel,
                    "count": draw.randrange(1, 1300),
                    "layer": layer,
                    "pagerank": draw.random() / 20,
                    "prev_channels": edges,
                    "attr_channels": strongest,
                }
            )
        found[layer] = neurons
        before = channels
    return dict(reversed(found.items()))


def write(folder: Path, graphs: dict[int, Any]) -> Path:
    """Puts graphs into files, by class index, and returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, graph in graphs.items():
        (folder / f"ag-{index}.json").write_text(json.dumps(graph), encoding="utf-8")
    return folder


def class_file(path: Path) -> Path:
    """A file of class names, so that torchvision is not loaded for them; 270 is white wolf."""
    rows = ["index,wnid,name", "270,n02114548,white wolf"]
    rows += [f"{number},n{number:08},class {number}" for number in range(1000) if number != 270]
    path.write_text("\n".join(rows), encoding="utf-8")
    return path
