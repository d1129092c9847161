"""Attribution graphs of image classifiers, over whole data sets.

from summit_graph import Atlas, ingest

ingest(model="torchvision:googlenet", weights="DEFAULT", images="photos/", atlas="my.atlas")
print(Atlas.open("my.atlas").attribution_graph("white wolf"))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from summit_graph.atlas.atlas import Atlas as Atlas
    from summit_graph.atlas.summit import import_summit as import_summit
    from summit_graph.errors import SummitGraphError as SummitGraphError
    from summit_graph.explain.pictures import Pictures as Pictures
    from summit_graph.graphdb.database import GraphDB as GraphDB
    from summit_graph.pipeline import ingest as ingest
    from summit_graph.rank.stage import Ranking as Ranking
    from summit_graph.reranking import merge as merge
    from summit_graph.reranking import rerank as rerank
    from summit_graph.view.explore import explore as explore
    from summit_graph.view.figure import attribution_figure as attribution_figure
    from summit_graph.view.pages import write_pages as write_pages
    from summit_graph.view.widget import attribution_widget as attribution_widget
    from summit_graph.visualisation import visualise as visualise

__version__ = "0.1.0"

_HOME = {
    "Atlas": "summit_graph.atlas.atlas",
    "GraphDB": "summit_graph.graphdb.database",
    "Pictures": "summit_graph.explain.pictures",
    "Ranking": "summit_graph.rank.stage",
    "SummitGraphError": "summit_graph.errors",
    "attribution_figure": "summit_graph.view.figure",
    "attribution_widget": "summit_graph.view.widget",
    "explore": "summit_graph.view.explore",
    "import_summit": "summit_graph.atlas.summit",
    "ingest": "summit_graph.pipeline",
    "merge": "summit_graph.reranking",
    "rerank": "summit_graph.reranking",
    "visualise": "summit_graph.visualisation",
    "write_pages": "summit_graph.view.pages",
}

__all__ = [
    "Atlas",
    "GraphDB",
    "Pictures",
    "Ranking",
    "SummitGraphError",
    "__version__",
    "attribution_figure",
    "attribution_widget",
    "explore",
    "import_summit",
    "ingest",
    "merge",
    "rerank",
    "visualise",
    "write_pages",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'summit_graph' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
