"""Writes an atlas as a folder of static pages that opens without a server or a network.

1. The page itself is `page/`: HTML, CSS and JavaScript, copied as they are.
2. Its data are scripts that call `summitData(<key>, <JSON>)`, since a page opened as a file may
   load scripts and nothing else: `data/overview.js` of all classes, `data/embedding.js`, and a
   `data/class-<index>.js` for each class, loaded when the class is chosen.
3. A neuron's feature visualisation is a data URI, `data/feature-<layer>-<channel>.js`, layers
   counted from 0 in the order of the forward pass, so that the page may save it within a picture.
   Beside these, `pictures/<layer>-<channel>-diverse.webp` has its diverse ones, and with
   `-examples` the patches of its dataset examples, square tiles side by side from the left.
4. The folder is made under a temporary name beside its own and put in place whole. What is in the
   way is replaced only if all of it was written here before (`pages.json` says what).

Names are data: whatever they hold, the scripts are ASCII and have no `<`, and the page shows them
as text. What the numbers mean: docs/method.md, sections 2 to 6.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from summit_graph.atlas.atlas import Atlas
from summit_graph.atlas.files import FolderLock, free_name_beside, writing
from summit_graph.errors import AtlasError, UsageError
from summit_graph.reporting import Progress, Reports
from summit_graph.view import page_data
from summit_graph.view.page_pictures import Portrait, Portraits

MARKER = "pages.json"
"""The file that says that a folder was written here, and which files of the page are in it."""

_DATA = re.compile(r"(overview|embedding|class-[0-9]+|feature-[0-9]+-[0-9]+)\.js")
_PICTURE = re.compile(r"[0-9]+-[0-9]+-(diverse|examples)\.webp")
_SYSTEM = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
"""Files that file managers leave in the folders that they show."""

_LOCK = ".lock"
_LISTED = 3


@dataclass(frozen=True)
class PagesReport:
    """What was written.

    Attributes:
        folder: where.
        index: the file to open.
        classes: classes that can be chosen; `without_graph` of them have no attribution graph.
        neurons: neurons of attribution graphs; `pictured` of them have a feature visualisation.
        examples: whether paths and pictures of dataset examples are in it.
        bytes: of all files together.
    """

    folder: Path
    index: Path
    classes: int
    without_graph: int
    neurons: int
    pictured: int
    examples: bool
    bytes: int


def write_pages(
    atlas: Atlas, out: str | Path, *, examples: bool = True, progress: Progress | None = None
) -> PagesReport:
    """Writes the pages of an atlas to the folder `out`, which is there whole or not at all.

    out: a new or empty folder, or one that was written here before and holds nothing else; that
    one is replaced. examples: put in the paths and pictures of dataset examples; without them the
    pages hold nothing of single images.

    Raises: UsageError if something else is at `out`; AtlasError if the atlas is not ranked, or if
    the folder cannot be written.
    """
    target = Path(out).resolve()
    require_replaceable(target)
    reports = Reports(progress)
    graphs = page_data.ClassGraphs(atlas)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        new = _free_name(target)
        new.mkdir()
        lock = FolderLock(new)
        try:
            report = _write(atlas, graphs, new, target, examples, reports)
            _put_in_place(new, target)
            (target / _LOCK).unlink()
        finally:
            lock.release()
            shutil.rmtree(new, ignore_errors=True)
    return report


def _free_name(target: Path) -> Path:
    """A name beside `target` to make it under. Raises: UsageError if another run is making it."""
    try:
        return free_name_beside(target)
    except AtlasError as error:
        raise UsageError(
            f"another run is writing pages to {target}: wait for it to end."
        ) from error


def require_replaceable(folder: Path) -> None:
    """Checks that pages can be put at `folder`: nothing is there, or nothing but pages.

    Raises: UsageError if something else is.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is there already and no folder: choose another one.")
    if not any(folder.iterdir()):
        return
    foreign = _foreign(folder)
    if foreign is None:
        raise UsageError(
            f"{folder} is there already, and its files were not written as pages: choose another "
            "folder. It was left as it is."
        )
    if foreign:
        more = f" and {len(foreign) - _LISTED} more" if len(foreign) > _LISTED else ""
        raise UsageError(
            f"{folder} holds pages, and beside them {', '.join(foreign[:_LISTED])}{more}: move "
            "those away, or choose another folder. It was left as it is."
        )


def _foreign(folder: Path) -> list[str] | None:
    """What in a folder of pages is no part of them; None if it is no folder of pages."""
    try:
        known = json.loads((folder / MARKER).read_text(encoding="utf-8"))["page"]
        own = {MARKER, _LOCK, *_SYSTEM, *known}
    except (OSError, ValueError, LookupError, TypeError):
        return None
    parts = {"data": _DATA, "pictures": _PICTURE}
    found = []
    for path in folder.iterdir():
        if path.name in parts and path.is_dir() and not path.is_symlink():
            pattern = parts[path.name]
            found += [
                f"{path.name}/{inner.name}"
                for inner in path.iterdir()
                if inner.is_dir() or not (pattern.fullmatch(inner.name) or inner.name in _SYSTEM)
            ]
        elif path.name not in own or path.is_dir():
            found.append(path.name)
    return sorted(found)


def _put_in_place(new: Path, target: Path) -> None:
    """Renames `new` to `target`, the pages that are there aside first."""
    if not target.exists():
        os.rename(new, target)
        return
    old = new.with_name(f"{new.name}-old")
    os.rename(target, old)
    try:
        os.rename(new, target)
    except OSError:
        os.rename(old, target)
        raise
    shutil.rmtree(old)


def _write(
    atlas: Atlas,
    graphs: page_data.ClassGraphs,
    folder: Path,
    target: Path,
    examples: bool,
    reports: Reports,
) -> PagesReport:
    """Writes everything into `folder`, which will be `target`."""
    written = _Folder(folder)
    page = _page_files()
    for name, content in page.items():
        written.add(name, content)
    marker = {"format": page_data.FORMAT, "page": list(page)}
    written.add(MARKER, page_data.as_json(marker).encode("ascii"))
    listed = page_data.examples(graphs) if examples else {}
    texts, pictured = {}, 0
    with reports.stage("writing pictures", len(graphs.by_neuron), "neuron") as stage:
        for portrait in Portraits(atlas, graphs, listed):
            written.portrait(portrait)
            pictured += portrait.feature is not None
            texts[portrait.key] = page_data.neuron_text(
                graphs,
                portrait.key,
                listed.get(portrait.key, ()),
                feature=portrait.feature is not None,
                diverse=portrait.tiles,
                patches=portrait.examples is not None,
            )
            stage.advance()
    similar, confusions = page_data.similar(graphs), page_data.confusions(graphs)
    embedding = page_data.embedding(graphs)
    overview = {
        **page_data.overview(atlas, graphs, confusions),
        "hasEmbedding": embedding is not None,
        "hasFeatures": pictured > 0,
        "hasExamples": bool(listed),
        "hasSimilarity": similar is not None,
    }
    written.data("overview", page_data.as_json(overview))
    if embedding is not None:
        written.data("embedding", page_data.as_json(embedding))
    with reports.stage("writing classes", len(graphs.records), "class") as stage:
        for place, record in enumerate(graphs.records):
            rest = {
                "similar": None if similar is None else similar[place],
                "confusions": None if confusions is None else confusions[place],
            }
            text = page_data.class_text(graphs, place, texts, rest)
            written.data(f"class-{record.index}", text)
            stage.advance()
    return PagesReport(
        folder=target,
        index=target / "index.html",
        classes=len(graphs.records),
        without_graph=sum(not size for size in overview["classes"]["neurons"]),
        neurons=len(graphs.by_neuron),
        pictured=pictured,
        examples=bool(listed),
        bytes=written.bytes,
    )


class _Folder:
    """A new folder of pages, and how much was written into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bytes = 0
        for inner in ("data", "pictures"):
            (folder / inner).mkdir()

    def add(self, name: str, content: bytes) -> None:
        """Writes a file."""
        (self.folder / name).write_bytes(content)
        self.bytes += len(content)

    def data(self, key: str, text: str) -> None:
        """Writes JSON text as a script that hands it to the page."""
        self.add(f"data/{key}.js", f'summitData("{key}", {text});\n'.encode("ascii"))

    def portrait(self, portrait: Portrait) -> None:
        """Writes the pictures of a neuron."""
        if portrait.feature is not None:
            self.data(f"feature-{portrait.name}", page_data.as_json(portrait.feature))
        if portrait.diverse is not None:
            self.add(f"pictures/{portrait.name}-diverse.webp", portrait.diverse)
        if portrait.examples is not None:
            self.add(f"pictures/{portrait.name}-examples.webp", portrait.examples)


def _page_files() -> dict[str, bytes]:
    """The files of the page itself, by name."""
    folder = resources.files("summit_graph.view").joinpath("page")
    files = sorted(
        (file for file in folder.iterdir() if file.is_file()), key=lambda file: file.name
    )
    return {file.name: file.read_bytes() for file in files}
