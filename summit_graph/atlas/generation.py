"""One finished set of an atlas' tables, read only.

1. The tables that belong together lie in one folder, `<atlas>/.tables/<number>`, a **generation**.
   The link `<atlas>/.tables/current` names the one that counts.
2. A generation never changes. Whoever holds one reads tables that fit each other, whatever a run
   does to the atlas meanwhile.
3. One class of a large table is read by skipping the row groups whose statistics exclude it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from summit_graph.atlas.schema import (
    ATLAS_TABLES,
    COUNTED,
    FORMAT_VERSION,
    ClassEntry,
    HopEntry,
    LayerEntry,
    ReceptiveField,
    classes_of,
    hops_of,
    layers_of,
)
from summit_graph.errors import AtlasError

TABLES = ".tables"
CURRENT = "current"
HEADER = "atlas.json"

Counts = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]
"""channels (n,) and in how many images each is counted (n,), by rising channel."""

HopCounts = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]]
"""source channels (n,), target channels (n,), counts (n,), by rising source, then target."""


def locate(atlas: Path) -> Path:
    """The folder of the generation that counts.

    Raises: AtlasError if there is no atlas at `atlas`.
    """
    link = atlas / TABLES / CURRENT
    if not atlas.is_dir():
        raise AtlasError(
            f"there is no atlas at {atlas}: no such folder. "
            "Make one with `summit-graph ingest IMAGES --model SPEC -o DIR`."
        )
    if not (link / HEADER).is_file():
        raise AtlasError(
            f"{atlas} is not an atlas: it has no {HEADER}. "
            "Make one with `summit-graph ingest IMAGES --model SPEC -o DIR`."
        )
    return link.parent / os.readlink(link) if link.is_symlink() else link


def read_header(folder: Path) -> dict[str, Any]:
    """The `atlas.json` in a generation's folder.

    Raises: AtlasError if it is damaged, or of a format that this version does not know.
    """
    path = folder / HEADER
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AtlasError(f"{path} cannot be read: {error}.") from error
    if not isinstance(header, dict) or not isinstance(header.get("format"), int):
        raise AtlasError(f"{path} is not the description of an atlas: it names no format.")
    if header["format"] > FORMAT_VERSION:
        raise AtlasError(
            f"{path} has format {header['format']}, this version of summit-graph reads up to "
            f"{FORMAT_VERSION}: install a newer one (the atlas was made with "
            f"{header.get('summit_graph') or 'an unknown version'})."
        )
    return header


class Generation:
    """The tables of one generation, and what `atlas.json` says of them.

    Cheap to make, picklable (only its path travels), to be used from several processes at once.

    folder: as `locate` returns it. Raises: AtlasError as `read_header`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.header = read_header(folder)
        self._files: dict[str, _ClassIndex] = {}

    def __reduce__(self) -> tuple[type[Generation], tuple[Path]]:
        return Generation, (self.folder,)

    @classmethod
    def current(cls, atlas: Path) -> Generation:
        """The generation that counts of the atlas at `atlas`. Raises: AtlasError."""
        return cls(locate(atlas))

    @property
    def complete(self) -> bool:
        """Whether images have been counted into tables; false of an atlas that is only planned."""
        return bool(self.header.get("complete"))

    @property
    def partial(self) -> str | None:
        """Why the atlas lacks images and counts, the rest of a sentence about it; else None.

        Such an atlas can be read all the same; see `Description.partial`.
        """
        return self.header.get("partial")

    @property
    def identity(self) -> Mapping[str, Any]:
        """What has to be equal for counts to be added; see `Description.identity`."""
        identity: Mapping[str, Any] = self.header["identity"]
        return identity

    @property
    def layers(self) -> tuple[LayerEntry, ...]:
        """All layers, hidden ones too, by number."""
        return layers_of(self.identity)

    @property
    def hops(self) -> tuple[HopEntry, ...]:
        """All computed hops, by number."""
        return hops_of(self.identity)

    @property
    def classes(self) -> tuple[ClassEntry, ...]:
        """All classes, by rising index."""
        return classes_of(self.identity)

    @property
    def fields(self) -> tuple[ReceptiveField, ...] | None:
        """The receptive fields of the chosen layers, by number; None where they are not known."""
        if not self.has("receptive_fields"):
            return None
        return tuple(ReceptiveField(**row) for row in self.table("receptive_fields").to_pylist())

    def path(self, name: str) -> Path:
        """Where table `name` lies, whether or not it is there."""
        return self.folder / f"{name}.parquet"

    def has(self, name: str) -> bool:
        """Whether table `name` has been made."""
        return self.path(name).is_file()

    def tables(self) -> tuple[str, ...]:
        """The names of the tables that have been made, in the order of `ATLAS_TABLES`."""
        return tuple(name for name in ATLAS_TABLES if self.has(name))

    def table(self, name: str, where: Any = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Table `name`, or the rows of it for which the pyarrow expression `where` holds.

        Raises: AtlasError if it has not been made, or cannot be read.
        """
        try:
            return pq.read_table(
                self._existing(name), filters=where, columns=columns, partitioning=None
            ).replace_schema_metadata(None)
        except (OSError, pa.ArrowInvalid) as error:
            raise AtlasError(f"{self.path(name)} cannot be read: {error}.") from error

    def of_class(self, name: str, index: int | None) -> pa.Table:
        """The rows of table `name` of one class (None: of no class), in the order of the key.

        name: a table whose key starts with the class.
        Raises: AtlasError if it has not been made, or cannot be read.
        """
        try:
            if name not in self._files:
                self._files[name] = _ClassIndex(pq.ParquetFile(self._existing(name)))
            return self._files[name].read(index)
        except (OSError, pa.ArrowInvalid) as error:
            raise AtlasError(f"{self.path(name)} cannot be read: {error}.") from error

    def class_activations(self, index: int) -> dict[int, Counts]:
        """`A[layer][class, ·]` of one class: layer number -> (channels, counts).

        Counts are images, 1 to images(class). Layers without a count are left out.
        Source: docs/method.md, section 2.
        """
        return _by_layer(self.of_class("activations", index))

    def class_raw_votes(self, index: int) -> dict[int, Counts]:
        """The votes of one class before contraction: layer number -> (channels, counts).

        The layers may be hidden. Source: docs/method.md, section 6.
        """
        return _by_layer(self.of_class("raw_votes", index))

    def class_influences(self, index: int) -> dict[int, HopCounts]:
        """`I[hop][class, ·, ·]` of one class: hop number -> (sources, targets, counts).

        Counts are images, 1 to images(class). Hops without a count are left out.
        Source: docs/method.md, section 3.
        """
        table = self.of_class("influences", index)
        columns = [_array(table, name) for name in ("source", "target", "count")]
        return {
            hop: (columns[0][rows], columns[1][rows], columns[2][rows])
            for hop, rows in _runs(_array(table, "hop"))
        }

    def _existing(self, name: str) -> Path:
        path = self.path(name)
        if path.is_file():
            return path
        atlas = self.folder.parent.parent
        if not self.folder.is_dir():
            raise AtlasError(f"{atlas} was made anew since it was opened: open it again.")
        if self.partial:
            raise AtlasError(f"{atlas} has no table '{name}': {self.partial}.")
        raise AtlasError(
            f"{atlas} has no table '{name}' yet. "
            f"Run `summit-graph {'ingest' if name in COUNTED else 'rank'}` on it."
        )


class _ClassIndex:
    """Reads the rows of one class of a file sorted by class, by its row groups' statistics."""

    def __init__(self, file: pq.ParquetFile) -> None:
        self.file = file
        metadata = file.metadata
        column = metadata.schema.names.index("class") if metadata.num_columns else 0
        low, high, nulls = [], [], []
        for group in range(metadata.num_row_groups):
            statistics = metadata.row_group(group).column(column).statistics
            known = statistics is not None and statistics.has_min_max
            low.append(statistics.min if known else 2**31)
            high.append(statistics.max if known else -1)
            nulls.append(bool(statistics is None or statistics.null_count))
        self.low = np.asarray(low, dtype=np.int64)
        self.high = np.asarray(high, dtype=np.int64)
        self.nulls = np.asarray(nulls, dtype=bool)

    def read(self, index: int | None) -> pa.Table:
        inside = self.nulls if index is None else (self.low <= index) & (index <= self.high)
        table = self.file.read_row_groups(np.flatnonzero(inside).tolist())
        column = table.column("class")
        keep = pc.is_null(column) if index is None else pc.equal(column, index)
        return table.filter(keep).replace_schema_metadata(None)


def _array(table: pa.Table, name: str) -> npt.NDArray[np.int32]:
    return np.asarray(table.column(name).to_numpy(), dtype=np.int32)


def _runs(values: npt.NDArray[np.int32]) -> Iterable[tuple[int, slice]]:
    """The runs of equal values in a sorted array: value and slice."""
    changes = np.flatnonzero(np.diff(values)) + 1
    starts = np.concatenate([np.arange(min(len(values), 1)), changes])
    ends = np.append(changes, len(values))[: len(starts)]
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        yield int(values[start]), slice(start, end)


def _by_layer(table: pa.Table) -> dict[int, Counts]:
    channels, counts = _array(table, "channel"), _array(table, "count")
    return {layer: (channels[rows], counts[rows]) for layer, rows in _runs(_array(table, "layer"))}


def hold(folder: Path) -> int | None:
    """Keeps a generation from being removed until the returned descriptor is closed.

    Where the file system has no locks, nothing keeps it. None: it is being removed or gone already;
    `locate` names a newer one.
    """
    try:
        descriptor = os.open(folder / HEADER, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            os.close(descriptor)
            raise
    if not (folder / HEADER).exists():
        os.close(descriptor)
        return None
    return descriptor


def remove(folder: Path, trash: Path) -> None:
    """Removes a generation unless a reader holds it; `trash` is a free name in the same folder."""
    with (folder / HEADER).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        os.rename(folder, trash)
        shutil.rmtree(trash)


def exists(atlas: Path) -> bool:
    """Whether there is an atlas at `atlas`, finished or not."""
    return (atlas / TABLES / CURRENT / HEADER).is_file()
