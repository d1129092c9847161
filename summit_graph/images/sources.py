"""Where images come from: a folder, a manifest, a data set, the demo set.

A source lists its images as `Item`s, sorted by path, and reads one at a time. Listing opens no
image, so that a million files are listed in seconds; reading gives the content and its hash. An
item's path is its key in the atlas: it does not depend on where the source lies or on how many
images it has.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import importlib.util
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from summit_graph.errors import ImageError, UsageError
from summit_graph.images.decoding import SUFFIXES

_NUMBER = re.compile(r"0|[1-9][0-9]*")


class Item(NamedTuple):
    """One image of a source, not yet read."""

    path: str
    """Its key: relative to the source's root with `/`, or the manifest's or data set's own."""
    folder: str
    """The source folder it lies in (`""` is the root); shards never straddle it."""
    label: str | None
    """Its folder's or label's name as the source has it; None without one."""


class Content(NamedTuple):
    """What is in one image of a source."""

    size: int
    """Bytes: of the file, or of the pixels where there is no file."""
    hash: str
    """SHA-256, hexadecimal, of those bytes (without a file, of mode or type and shape too)."""
    image: bytes | Image.Image | Tensor
    """A file's bytes; a picture; or a float tensor (C, H, W) that is already preprocessed."""


class Source(Protocol):
    """A set of images that can be listed, and read one by one from several threads."""

    @property
    def name(self) -> str:
        """The data set's name."""

    @property
    def passed_over(self) -> tuple[str, ...]:
        """The files that lie among the images and are none, by path (a folder ends in `/`)."""

    @property
    def labels_are_outputs(self) -> bool:
        """Whether every label is the decimal number of a model output, and not a name."""

    def items(self) -> Sequence[Item]:
        """All images, sorted by path (plain string order).

        Raises:
            ImageError: there is no image, or the source cannot be listed.
        """

    def read(self, item: Item) -> Content:
        """The content of one image; it may be called from several threads.

        Raises:
            ImageError: the image is missing or cannot be read.
        """


def open_source(spec: str) -> Source:
    """The source that a text names.

    `spec` is `digits` (the demo set: scikit-learn's handwritten digits, the held-out half), a
    folder of images or of class folders, a manifest (`.csv`, `.parquet`), or a
    `torch.utils.data.Dataset` or a callable that returns one, as `module:attribute` or
    `file.py:attribute`. A folder that is called `digits` is `./digits`.

    Raises:
        UsageError: nothing of that name is there, or it is no source of images.
        ImageError: a manifest that cannot be read.
    """
    if spec == "digits":
        from summit_graph.images.digits import DigitsSource

        return DigitsSource()
    path = Path(spec)
    if path.is_dir():
        return FolderSource(path)
    if path.suffix.lower() in (".csv", ".parquet"):
        return ManifestSource(path)
    if ":" in spec:
        return DatasetSource(called(attribute(spec), spec), name=spec.rpartition(":")[2])
    raise UsageError(
        f"No images at '{spec}'. Give a folder, a manifest (.csv or .parquet with the columns path "
        "and label), a data set (module:attribute or file.py:attribute), or 'digits'."
    )


def labels_of(items: Iterable[Item]) -> tuple[str, ...]:
    """The distinct labels of the images, in plain string order; images without one aside."""
    return tuple(sorted({item.label for item in items if item.label is not None}))


@dataclass
class FolderSource:
    """The image files under a folder; the first folder on the way to a file is its label.

    Files whose ending is none of `decoding.SUFFIXES`, and whatever is hidden (its name starts
    with a dot), are passed over. Links are followed; a linked folder that contains itself is
    refused.
    """

    root: Path
    labels_are_outputs: bool = field(default=False, init=False)
    _listing: tuple[list[Item], tuple[str, ...]] | None = field(
        default=None, init=False, repr=False
    )

    @property
    def name(self) -> str:
        return self.root.resolve().name

    @property
    def passed_over(self) -> tuple[str, ...]:
        return self._listed()[1]

    def items(self) -> Sequence[Item]:
        items, passed_over = self._listed()
        if not items:
            among = f" among {len(passed_over)} other files" if passed_over else ""
            raise ImageError(
                f"No image in the folder '{self.root}'{among}. Images end in "
                f"{', '.join(sorted(SUFFIXES))}."
            )
        return items

    def read(self, item: Item) -> Content:
        return _file_content(self.root / item.path, item)

    def _listed(self) -> tuple[list[Item], tuple[str, ...]]:
        if self._listing is None:
            items: list[Item] = []
            passed_over: list[str] = []
            for item in _walk(self.root, "", None, (os.path.realpath(self.root),), passed_over):
                items.append(item)
            items.sort()
            self._listing = items, tuple(sorted(passed_over))
        return self._listing


def _walk(
    folder: Path | str,
    key: str,
    label: str | None,
    above: tuple[str, ...],
    passed_over: list[str],
) -> Iterator[Item]:
    """The images under one folder; `above` are the real paths of it and of what it lies in."""
    prefix = f"{key}/" if key else ""
    folders: list[tuple[str, str]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                path = prefix + entry.name
                if entry.is_dir():
                    if entry.name.startswith("."):
                        passed_over.append(f"{path}/")
                    else:
                        folders.append((entry.path, path))
                elif (
                    not entry.name.startswith(".")
                    and os.path.splitext(entry.name)[1].lower() in SUFFIXES
                    and (entry.is_file() or entry.is_symlink())
                ):
                    yield Item(_printable(path), key, label)
                else:
                    passed_over.append(path)
    except OSError as error:
        raise ImageError(f"The folder '{folder}' cannot be listed: {error.strerror}.") from error
    for place, path in folders:
        real = os.path.realpath(place)
        if real in above:
            raise ImageError(
                f"The folder '{path}' contains itself: it leads to '{real}'. Remove the link."
            )
        yield from _walk(place, path, label or path, (*above, real), passed_over)


def _printable(path: str) -> str:
    """The same path, which must be text that a table can hold."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise ImageError(
            f"The name of the file {os.fsencode(path)!r} is no UTF-8. Rename it."
        ) from error
    return path


def _file_content(path: Path, item: Item) -> Content:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ImageError(
            f"The image '{item.path}' cannot be read ({path}: {error.strerror})."
        ) from error
    return Content(len(content), hashlib.sha256(content).hexdigest(), content)


@dataclass
class ManifestSource:
    """A table of images: the columns `path` and, if there are labels, `label`.

    Relative paths are relative to the manifest's folder and may not leave it; absolute ones are
    taken as they are. A label is a name, or, where all labels are whole numbers from 0 on, the
    number of a model output. An empty label is none.
    """

    path: Path
    passed_over: tuple[str, ...] = field(default=(), init=False)
    labels_are_outputs: bool = field(default=False, init=False)
    _items: list[Item] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        rows = _csv_rows if self.path.suffix.lower() == ".csv" else _parquet_rows
        first_place: dict[str, str] = {}
        for place, path, label in rows(self.path):
            key = self._key(path, place)
            whole = os.path.normpath(self.path.parent.absolute() / key)
            if whole in first_place:
                raise UsageError(
                    f"'{self.path}' has the image '{key}' twice: {first_place[whole]} and {place}. "
                    "Keep one of them."
                )
            first_place[whole] = place
            self._items.append(Item(key, key.rpartition("/")[0], label or None))
        if not self._items:
            raise ImageError(f"The manifest '{self.path}' has no rows.")
        self._items.sort()
        labels = labels_of(self._items)
        self.labels_are_outputs = bool(labels) and all(map(_NUMBER.fullmatch, labels))

    @property
    def name(self) -> str:
        return self.path.stem

    def items(self) -> Sequence[Item]:
        return self._items

    def read(self, item: Item) -> Content:
        return _file_content(self.path.parent / item.path, item)

    def _key(self, path: str, place: str) -> str:
        """The path without detours (`./`, `x/../`)."""
        if not path:
            raise UsageError(f"'{self.path}', {place}: the path is empty.")
        key = PurePath(os.path.normpath(path)).as_posix()
        if key == ".." or key.startswith("../"):
            raise UsageError(
                f"'{self.path}', {place}: '{path}' lies outside the manifest's folder. Move the "
                "manifest to a folder that holds all images, or give absolute paths."
            )
        return key


def _csv_rows(manifest: Path) -> Iterator[tuple[str, str, str]]:
    """The rows of a CSV manifest: (where it stands, path, label)."""
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, strict=True)
            _need_path(reader.fieldnames or (), manifest)
            for row in reader:
                place = f"line {reader.line_num}"
                if None in row:
                    raise UsageError(f"'{manifest}', {place}: more fields than columns.")
                yield place, (row["path"] or "").strip(), (row.get("label") or "").strip()
    except OSError as error:
        raise UsageError(f"The manifest '{manifest}' cannot be read: {error.strerror}.") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"The manifest '{manifest}' is no CSV in UTF-8: {error}.") from error


def _parquet_rows(manifest: Path) -> Iterator[tuple[str, str, str]]:
    """The rows of a Parquet manifest: (where it stands, path, label)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not manifest.is_file():
        raise UsageError(f"The manifest '{manifest}' cannot be read: there is no such file.")
    try:
        table = pq.ParquetFile(manifest)
        names = table.schema_arrow.names
        _need_path(names, manifest)
        columns = [name for name in ("path", "label") if name in names]
        batches = table.iter_batches(columns=columns)
        rows = (row for batch in batches for row in batch.to_pylist())
        for number, row in enumerate(rows):
            path, label = row["path"], row.get("label")
            if isinstance(label, float):
                raise UsageError(
                    f"The manifest '{manifest}' has fractions in its column label. Store model "
                    "outputs as an integer column, names as text."
                )
            label_text = "" if label is None else str(label)
            yield f"row {number}", "" if path is None else str(path), label_text
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"The manifest '{manifest}' is no readable Parquet: {error}.") from error


def _need_path(columns: Sequence[str], manifest: Path) -> None:
    if "path" not in columns:
        raise UsageError(
            f"The manifest '{manifest}' has no column 'path'. It has: "
            f"{', '.join(columns) or 'none'}. The first line names the columns: path,label."
        )


class DatasetSource:
    """A map-style `torch.utils.data.Dataset`; an image's key is its number, eight digits.

    An item is `(image, label, …)` or an image alone. An image is a PIL picture, a uint8 array
    (H, W, channels) or (H, W), or a float tensor (C, H, W), which counts as preprocessed. A label
    is a whole number (a model output), a name, or None. Labels come from the data set's `targets`
    where it has them (and no `target_transform`), else from its items. Items are asked for under a
    lock, since few data sets may be read from several threads.
    """

    def __init__(self, dataset: Any, name: str) -> None:
        """Take a data set, which has `__len__` and `__getitem__`.

        Raises:
            UsageError: it lacks one of them.
        """
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise UsageError(
                f"'{name}' is a {type(dataset).__name__}, which is no data set with a length and "
                "numbered items. Images that only come as a stream must be written to files first."
            )
        self.name = name
        self.passed_over: tuple[str, ...] = ()
        self._dataset = dataset
        self._lock = threading.Lock()
        labels = self._labels()
        texts = {label for label in labels if label is not None}
        numbers = {label for label in texts if isinstance(label, int)}
        if numbers and numbers != texts:
            raise ImageError(
                f"The data set '{name}' has numbers and names as labels. Use one kind."
            )
        self.labels_are_outputs = bool(numbers)
        self._items = [
            Item(f"{number:08}", "", None if label is None else str(label))
            for number, label in enumerate(labels)
        ]

    def items(self) -> Sequence[Item]:
        if not self._items:
            raise ImageError(f"The data set '{self.name}' is empty.")
        return self._items

    def read(self, item: Item) -> Content:
        try:
            with self._lock:
                image, label = _image_and_label(self._dataset[int(item.path)])
        except Exception as error:  # a data set's own code may raise anything
            raise ImageError(
                f"The data set '{self.name}' gives no item {item.path}: "
                f"{type(error).__name__}: {error}."
            ) from error
        known = self._plain(label, int(item.path))
        if (None if known is None else str(known)) != item.label:
            raise ImageError(
                f"Item {item.path} of the data set '{self.name}' now has the label {known!r}, and "
                f"had {item.label!r}. A data set must give the same item each time."
            )
        return self._content(image, item)

    def _labels(self) -> list[str | int | None]:
        count = len(self._dataset)
        targets = getattr(self._dataset, "targets", None)
        transformed = getattr(self._dataset, "target_transform", None) is not None
        if targets is not None and not transformed and len(targets) == count:
            return [self._plain(label, number) for number, label in enumerate(targets)]
        return [
            self._plain(_image_and_label(self._dataset[number])[1], number)
            for number in range(count)
        ]

    def _plain(self, label: Any, number: int) -> str | int | None:
        if isinstance(label, (Tensor, np.ndarray, np.generic)) and label.ndim == 0:
            label = label.item()
        if label is None or (isinstance(label, (str, int)) and not isinstance(label, bool)):
            return label
        raise ImageError(
            f"Item {number} of the data set '{self.name}' has a {type(label).__name__} as its "
            "label. A label is a whole number (a model output) or a name."
        )

    def _content(self, image: Any, item: Item) -> Content:
        if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3):
            gray = image.ndim == 3 and image.shape[2] == 1
            image = Image.fromarray(image[:, :, 0] if gray else image)
        if isinstance(image, Image.Image):
            return _picture_content(image)
        if isinstance(image, Tensor) and image.ndim == 3 and image.is_floating_point():
            pixels = image.detach().to("cpu", torch.float32).contiguous()
            raw = pixels.numpy().tobytes()
            return Content(len(raw), _hash(f"float32 {tuple(pixels.shape)}", raw), pixels)
        shape = tuple(getattr(image, "shape", ()))
        raise ImageError(
            f"Item {item.path} of the data set '{self.name}' is a {type(image).__name__}"
            f"{f' {image.dtype} {shape}' if shape else ''}. An image is a PIL picture, a uint8 "
            "array (H, W, channels), or a preprocessed float tensor (C, H, W)."
        )


def _image_and_label(item: Any) -> tuple[Any, Any]:
    """The parts of a data set's item, which is `(image, label, …)` or an image alone."""
    if isinstance(item, (tuple, list)):
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def _picture_content(picture: Image.Image) -> Content:
    raw = picture.tobytes()
    palette = b"" if picture.palette is None else picture.palette.tobytes()
    transparency = picture.info.get("transparency")
    kind = f"{picture.mode} {picture.size} {palette.hex()} {transparency!r}"
    return Content(len(raw), _hash(kind, raw), picture)


def _hash(kind: str, raw: bytes) -> str:
    return hashlib.sha256(kind.encode() + b"\n" + raw).hexdigest()


def attribute(spec: str) -> Any:
    """The object that `module:attribute` or `file.py:attribute` names (dots lead inside it).

    A file is run by its path. While it runs, and only then, modules beside it can be imported.

    Raises:
        UsageError: no such module, file or attribute, or the module fails when it is imported.
    """
    place, _, names = spec.rpartition(":")
    if not place or not names:
        raise UsageError(f"'{spec}' is neither module:attribute nor file.py:attribute.")
    try:
        with siblings_importable(spec):
            found: Any = _file_module(Path(place)) if _is_file(place) else _module(place)
    except UsageError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise UsageError(
            f"'{place}' cannot be imported: {type(error).__name__}: {error}."
        ) from error
    for name in names.split("."):
        if not hasattr(found, name):
            public = sorted(known for known in dir(found) if not known.startswith("_"))
            raise UsageError(
                f"'{place}' has no '{names}'. It has: {', '.join(public[:12]) or 'nothing'}."
            )
        found = getattr(found, name)
    return found


def called(found: Any, spec: str) -> Any:
    """A data set as it is; what a class or function returns when it is called without arguments.

    Raises:
        UsageError: the call fails.
    """
    if not isinstance(found, type) and hasattr(found, "__getitem__"):
        return found
    if not callable(found):
        return found
    try:
        with siblings_importable(spec):
            return found()
    except Exception as error:  # the user's own code may raise anything
        raise UsageError(
            f"'{spec}', called without arguments, fails: {type(error).__name__}: {error}."
        ) from error


@contextmanager
def siblings_importable(spec: str) -> Iterator[None]:
    """For `file.py:attribute`: modules beside the file can be imported within this context."""
    place = spec.rpartition(":")[0]
    if not _is_file(place):
        yield
        return
    folder = Path(place).resolve().parent
    _forget_namesakes(folder)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


def _forget_namesakes(folder: Path) -> None:
    """Let modules in this folder be imported that have a name in common with ones beside another.

    What lies beside one file stays imported when `sys.path` no longer leads there; it would be
    taken for what lies beside the next file. Modules that `sys.path` leads to are left alone.
    """
    names = {path.stem for path in folder.glob("*.py")}
    names |= {path.parent.name for path in folder.glob("*/__init__.py")}
    reached = {Path(entry).resolve() for entry in sys.path}
    for name in names & sys.modules.keys():
        origin = getattr(sys.modules[name], "__file__", None)
        if origin is None:
            continue
        file = Path(origin).resolve()
        beside = file.parent.parent if file.stem == "__init__" else file.parent
        if beside != folder and beside not in reached:
            for loaded in [key for key in sys.modules if key.partition(".")[0] == name]:
                del sys.modules[loaded]


def _is_file(place: str) -> bool:
    return place.endswith(".py")


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise
        raise UsageError(
            f"There is no module '{name}' to import. For a file, write its path: "
            f"'{name.replace('.', '/')}.py:…'."
        ) from error


def _file_module(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"There is no file '{path}'.")
    whole = str(path.resolve())
    name = f"{path.stem}_{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
    module_spec = importlib.util.spec_from_file_location(name, whole)
    if module_spec is None or module_spec.loader is None:
        raise UsageError(f"'{path}' is no Python file.")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up there
    try:
        module_spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
