"""An atlas as the one process sees it that writes it: plan, shards, tables.

1. `Store.create` makes the folder with its description; `Store.open_for_writing` opens it again.
   Both take the lock, and remove what a killed run left half done.
2. `Store.plan` fixes which images make up which shard: runs of at most `shard_size` images of one
   folder, in path order, in batches of at most `batch_size`. So a shard never straddles a folder
   nor a batch a shard, and a resumed run counts the same batches as an undisturbed one. Images
   that are planned stay where they are; new ones go to new shards.
3. `write_shard` puts a counted shard in place, whole or not at all, in any order and from any
   process.
4. A `Draft` collects tables in a folder of their own and puts them in place together.

What the system refuses and what does not fit the atlas is an `AtlasError`; what was finished stays.
Source of what is counted and why it adds up: docs/method.md, section 7.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from summit_graph.atlas import generation as generations
from summit_graph.atlas.files import (
    FolderLock,
    TableWriter,
    discard,
    free_name_beside,
    is_temporary,
    point,
    publish_folder,
    replace_file,
    share,
    sync,
    temporary,
    write_table,
    write_text,
    writing,
)
from summit_graph.atlas.generation import CURRENT, HEADER, TABLES, Generation
from summit_graph.atlas.schema import (
    ATLAS_TABLES,
    INTERNAL,
    SHARD_TABLES,
    Description,
    canonical,
    checked,
    first_difference,
    first_unsorted,
    key_columns,
)
from summit_graph.errors import AtlasError

SHARDS = "shards"
PLAN = "plan.parquet"
PART = pa.field("part", pa.int32())

PLAN_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("folder", pa.string()),
        ("label", pa.int32()),
        ("size", pa.int64()),
        ("hash", pa.string()),
        ("shard", pa.int32()),
        ("batch", pa.int32()),
    ]
)

_NAMED = 3


class ImageEntry(NamedTuple):
    """An image as it is planned.

    path: relative to the source's root, or the source's own key; unique. folder: of the source; no
    shard has images of two. label: output of the model, None if unknown. size: bytes. hash: of the
    content.
    """

    path: str
    folder: str
    label: int | None
    size: int
    hash: str


@dataclass(frozen=True)
class Shard:
    """The images of one shard, in the batches in which they have to be counted."""

    number: int
    batches: tuple[tuple[ImageEntry, ...], ...]

    @property
    def images(self) -> tuple[ImageEntry, ...]:
        """All images, in order."""
        return tuple(image for batch in self.batches for image in batch)


class Store:
    """The right to write one atlas, from `create` or `open_for_writing` until `close`.

    A context manager. `path` is the atlas' folder.
    """

    def __init__(self, path: Path, lock: FolderLock) -> None:
        self.path = path
        self._lock = lock
        self._plan: pa.Table | None = None

    # Opening and closing

    @classmethod
    def create(cls, path: str | Path, description: Description) -> Store:
        """A new atlas in a folder that is empty or not there yet.

        Raises: AtlasError if something else is in the folder, if another run is making an atlas
        there, or if it cannot be written.
        """
        folder = Path(path)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _refuse_other_content(folder)
            lock = FolderLock(folder)
            try:
                _refuse_other_content(folder)
                if generations.exists(folder):
                    raise AtlasError(f"{folder} is an atlas already: open it instead.")
                store = cls(folder, lock)
                (folder / TABLES).mkdir(exist_ok=True)
                (folder / SHARDS).mkdir(exist_ok=True)
                store._clean()
                write_table(new_plan := temporary(folder), PLAN_SCHEMA, [PLAN_SCHEMA.empty_table()])
                replace_file(new_plan, folder / PLAN)
                with store.draft(keep=()) as draft:
                    draft.publish({**description.header(), "complete": False}, fresh=True)
                sync(folder.parent)
            except BaseException:
                lock.release()
                raise
        return store

    @classmethod
    def open_for_writing(cls, path: str | Path) -> Store:
        """An atlas that is there, to be gone on with.

        Raises: AtlasError if there is none, if it is a partial one (`Description.partial`), if
        another run writes it, if its format is newer, or if it cannot be written.
        """
        folder = Path(path)
        partial = generations.read_header(generations.locate(folder)).get("partial")
        if partial:
            raise AtlasError(
                f"{folder} can be read, but neither counted into nor ranked: {partial}. Count "
                "images into an atlas of their own."
            )
        with writing(folder):
            lock = FolderLock(folder)
            try:
                store = cls(folder, lock)
                store._clean()
            except BaseException:
                lock.release()
                raise
        return store

    @classmethod
    def open_or_create(cls, path: str | Path, description: Description) -> Store:
        """The atlas at `path`, made if it is not there, else checked with `require`.

        Raises: AtlasError as `create`, `open_for_writing` and `require`.
        """
        if not generations.exists(Path(path)):
            return cls.create(path, description)
        store = cls.open_for_writing(path)
        try:
            store.require(description)
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Lets another run write the atlas."""
        self._lock.release()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # Description

    @property
    def generation(self) -> Generation:
        """The tables that count now."""
        return Generation.current(self.path)

    @property
    def header(self) -> dict[str, Any]:
        """What `atlas.json` says now."""
        return self.generation.header

    def require(self, description: Description) -> None:
        """Checks that more can be counted into this atlas as `description` has it.

        Raises: AtlasError with the first difference in weights, layers, parameters, preprocessing
        or classes.
        """
        difference = first_difference(self.header["identity"], description.identity)
        if difference:
            raise AtlasError(
                f"{self.path} was counted otherwise: {difference.where} is {difference.first} "
                f"there and {difference.second} now. Nothing was changed. Use the same, or count "
                "into a new atlas (-o)."
            )

    # Plan

    @property
    def planned(self) -> pa.Table:
        """All planned images, by shard, batch and path; columns as `PLAN_SCHEMA`."""
        if self._plan is None:
            self._plan = _read_plan(self.path)
        return self._plan

    def plan(self, images: Iterable[ImageEntry]) -> list[int]:
        """Makes room for new images and returns the shards that are to be counted, by number.

        images: all images of the source, in any order, those of the atlas among them. Where there
        is nothing new, nothing is written.

        Raises: AtlasError, and changes nothing, if two images have one path; if an image of the
        atlas has another content or label now, or is gone (the first few are named).
        """
        entries: dict[str, ImageEntry] = {}
        for image in images:
            if image.path in entries:
                raise AtlasError(f"two images have the path {image.path!r}: leave one out.")
            entries[image.path] = image
        known = self.planned
        _refuse_changes(self.path, known, entries)
        known_paths = set(known.column("path").to_pylist())
        new = [image for path, image in entries.items() if path not in known_paths]
        if new:
            parameters = self.header["identity"]["parameters"]
            first = 1 + (pc.max(known.column("shard")).as_py() if known.num_rows else -1)
            rows = _arranged(new, first, int(parameters["shard_size"]), parameters["batch_size"])
            with writing(self.path):
                self._replace_plan(pa.concat_tables([known, rows]))
        return self.pending()

    def pending(self) -> list[int]:
        """The numbers of the planned shards that are not finished, rising."""
        planned = np.unique(self.planned.column("shard").to_numpy()).tolist()
        finished = self._shard_folders()
        return [number for number in planned if number not in finished]

    def finished(self) -> list[int]:
        """The numbers of the finished shards, rising."""
        planned = np.unique(self.planned.column("shard").to_numpy()).tolist()
        found = self._shard_folders()
        return [number for number in planned if number in found]

    def shard(self, number: int) -> Shard:
        """The images of a planned shard. Raises: AtlasError if no such shard is planned."""
        return _shard(self.planned, number)

    # Shards

    def shard_folder(self, number: int) -> Path:
        """Where the tables of shard `number` lie once it is finished."""
        return self.path / SHARDS / str(number)

    def write_shard(self, number: int, tables: Mapping[str, pa.Table]) -> None:
        """Finishes a shard; see the function `write_shard`."""
        write_shard(self.path, number, tables)

    def replace_shards(self, numbers: Sequence[int], folder: Path) -> int:
        """Puts one folder of shard tables in place of several finished shards, returns its number.

        folder: in the folder of the shards, under a `temporary` name, its files synced. Each image
        is counted once at any moment: the new shard counts from when the plan names it, and the old
        ones until then.
        """
        number: int = 1 + pc.max(self.planned.column("shard")).as_py()
        with writing(self.path):
            publish_folder(folder, self.shard_folder(number))
            shard = self.planned.column("shard").to_numpy()
            folded = np.isin(shard, np.asarray(numbers))
            self._replace_plan(
                self.planned.set_column(
                    PLAN_SCHEMA.get_field_index("shard"),
                    PLAN_SCHEMA.field("shard"),
                    pa.array(np.where(folded, number, shard), pa.int32()),
                )
            )
            self._clean()
        return number

    def adopt(self, folders: Sequence[Path], plans: Sequence[pa.Table]) -> None:
        """Takes over finished shards of other atlases as shards 0, 1, … of this one, which is new.

        folders: their folders; the files are shared where the file system can, else copied.
        plans: the rows of each in the plan it comes from.
        """
        with writing(self.path):
            for number, folder in enumerate(folders):
                new = temporary(self.path / SHARDS)
                new.mkdir()
                for name in SHARD_TABLES:
                    share(folder / f"{name}.parquet", new / f"{name}.parquet")
                publish_folder(new, self.shard_folder(number))
            self._replace_plan(
                pa.concat_tables(
                    [
                        rows.set_column(
                            PLAN_SCHEMA.get_field_index("shard"),
                            PLAN_SCHEMA.field("shard"),
                            pa.array(np.full(rows.num_rows, number), pa.int32()),
                        )
                        for number, rows in enumerate(plans)
                    ]
                    or [PLAN_SCHEMA.empty_table()]
                )
            )

    # Tables

    def draft(self, keep: Iterable[str] | None = None) -> Draft:
        """A new set of tables, to be filled and published; see `Draft`.

        keep: tables to take over from the present set unless they are written anew (None: all).
        """
        return Draft(self, keep)

    def replace_tables(
        self,
        tables: Mapping[str, pa.Table | Iterable[pa.Table]],
        entries: Mapping[str, Any] | None = None,
    ) -> Generation:
        """Puts tables in place of those of the same name, all at once, and keeps the others.

        tables: name -> the rows, sorted by the table's key, as one table or several.
        entries: what `atlas.json` says from then on besides what it says now (None removes one).
        Raises: AtlasError if a table does not fit its columns, is not sorted by its key or has a
        key twice, or cannot be written; the present set stays.
        """
        with self.draft() as draft:
            for name, table in tables.items():
                draft.write(name, table)
            return draft.publish(entries)

    @property
    def digest(self) -> str:
        """A SHA-256 over path, content and label of all planned images, whatever their shards."""
        return plan_digest(self.planned)

    def up_to_date(self) -> bool:
        """Whether the tables are made of all planned images: they need not be made again."""
        header = self.header
        return bool(header.get("complete")) and header.get("counted", {}).get("digest") == (
            self.digest
        )

    # Leftovers

    def _clean(self) -> None:
        """Removes what a killed run left, and makes the links at the top anew."""
        for folder in (self.path, self.path / SHARDS, self.path / TABLES):
            for entry in folder.iterdir():
                if is_temporary(entry):
                    discard(entry)
        link = self.path / TABLES / CURRENT
        if link.is_dir() and not link.is_symlink():
            raise AtlasError(
                f"{self.path} was copied without its symbolic links: it can be read, not written. "
                "Copy it again with `cp -a`."
            )
        current = int(os.readlink(link)) if generations.exists(self.path) else -1
        for entry in (self.path / TABLES).iterdir():
            if entry.name.isdigit() and int(entry.name) > current:
                shutil.rmtree(entry)
        if current < 0:
            return
        self._plan = None
        named = set(self.planned.column("shard").to_pylist())
        orphans = self._shard_folders() - named
        for number in orphans:
            # Renamed first: half a shard must never look like a finished one.
            trash = temporary(self.path / SHARDS)
            os.rename(self.shard_folder(number), trash)
            sync(self.path / SHARDS)
            shutil.rmtree(trash)
        self._link()

    def _link(self) -> None:
        """Links the tables at the top of the atlas to those of the current set, and no others."""
        current = self.path / TABLES / CURRENT
        for name in [HEADER, *(f"{name}.parquet" for name in ATLAS_TABLES)]:
            link = self.path / name
            there = (current / name).is_file() and name.removesuffix(".parquet") not in INTERNAL
            if there and not link.is_symlink():
                point(link, f"{TABLES}/{CURRENT}/{name}")
            elif not there and link.is_symlink():
                link.unlink()

    def _shard_folders(self) -> set[int]:
        with writing(self.path):
            return {
                int(entry.name)
                for entry in os.scandir(self.path / SHARDS)
                if entry.name.isdigit() and entry.is_dir()
            }

    def _replace_plan(self, plan: pa.Table) -> None:
        plan = plan.sort_by([("shard", "ascending"), ("batch", "ascending"), ("path", "ascending")])
        new = temporary(self.path)
        try:
            write_table(new, PLAN_SCHEMA, [plan])
            replace_file(new, self.path / PLAN)
        except BaseException:
            discard(new)
            raise
        self._plan = None


class Draft:
    """A set of tables that is being written; a context manager that removes what is not published.

    Tables come whole (`write`) or piece by piece, several side by side (`append`), their rows
    sorted by their key. `publish` puts them in place together, once; readers see the old set until
    then and the new one after.
    """

    def __init__(self, store: Store, keep: Iterable[str] | None) -> None:
        self._store = store
        self._keep = keep
        self._writers: dict[str, TableWriter] = {}
        self._last: dict[str, list[npt.NDArray[np.int64]]] = {}
        self._published = False
        self.folder = temporary(store.path / TABLES)

    def __enter__(self) -> Draft:
        with writing(self._store.path):
            self.folder.mkdir()
        return self

    def __exit__(self, *error: object) -> None:
        for writer in self._writers.values():
            writer.abandon()
        if not self._published:
            discard(self.folder)

    def append(self, name: str, table: pa.Table) -> None:
        """Appends rows to table `name`. Their keys lie above those appended before.

        Raises: AtlasError if they do not, if the table does not fit its columns, or if it cannot be
        written.
        """
        schema = ATLAS_TABLES[name]
        table = checked(name, table, schema)
        if table.num_rows:
            columns = key_columns(name, table)
            if name in self._last:
                columns = [
                    np.concatenate([last, column])
                    for last, column in zip(self._last[name], columns, strict=True)
                ]
            row = first_unsorted(columns)
            if row is not None:
                keys = [tuple(int(column[at]) for column in columns) for at in (row - 1, row)]
                raise AtlasError(
                    f"the rows of table '{name}' have to rise by their key, each key once: "
                    f"{keys[1]} comes after {keys[0]}."
                )
            self._last[name] = [column[-1:] for column in columns]
        with writing(self._store.path):
            if name not in self._writers:
                self._writers[name] = TableWriter(self.folder / f"{name}.parquet", schema)
            self._writers[name].write(table)

    def write(self, name: str, tables: pa.Table | Iterable[pa.Table]) -> None:
        """Appends all rows of a table or of several; without any, an empty table is made."""
        self.append(name, ATLAS_TABLES[name].empty_table())
        for table in [tables] if isinstance(tables, pa.Table) else tables:
            self.append(name, table)

    def publish(self, entries: Mapping[str, Any] | None = None, fresh: bool = False) -> Generation:
        """Puts the tables in place and returns the new set.

        entries: what `atlas.json` says from then on besides what it says now, or alone (`fresh`);
        None as a value removes an entry. Raises: AtlasError if it cannot be written.
        """
        store = self._store
        with writing(store.path):
            for writer in self._writers.values():
                writer.close()
            number = 0
            header: dict[str, Any] = {}
            if generations.exists(store.path):
                present = store.generation
                number = int(present.folder.name) + 1
                header = {} if fresh else dict(present.header)
                for name in present.tables() if self._keep is None else self._keep:
                    if name not in self._writers and present.has(name):
                        share(present.path(name), self.folder / f"{name}.parquet")
            header.update(entries or {})
            header = {key: value for key, value in header.items() if value is not None}
            write_text(
                self.folder / HEADER,
                json.dumps(header, indent=1, ensure_ascii=False, sort_keys=True) + "\n",
            )
            target = store.path / TABLES / str(number)
            if target.exists():
                shutil.rmtree(target)
            publish_folder(self.folder, target)
            self._published = True
            point(store.path / TABLES / CURRENT, str(number))
            store._link()
            for entry in (store.path / TABLES).iterdir():
                if entry.name.isdigit() and int(entry.name) < number - 1:
                    generations.remove(entry, temporary(entry.parent))
        return Generation(target)


def write_shard(atlas: str | Path, number: int, tables: Mapping[str, pa.Table]) -> None:
    """Finishes a shard: writes its tables whole or not at all.

    Needs no lock of its own, so that worker processes can call it while the process that started
    them holds the `Store`. A shard that is finished stays as it is.

    tables: the five of `SHARD_TABLES`; `images` has one row for each image of the shard.
    Raises: AtlasError if a table does not fit its columns, if the images are not those planned, if
    a count is not above 0, or if it cannot be written.
    """
    path = Path(atlas)
    target = path / SHARDS / str(number)
    if target.is_dir():
        return
    parts = _checked_shard(path, number, tables)
    with writing(path):
        folder = temporary(path / SHARDS)
        folder.mkdir()
        try:
            for name, table in parts.items():
                write_table(folder / f"{name}.parquet", table.schema, [table])
            publish_folder(folder, target)
        except BaseException:
            discard(folder)
            raise


def disk_schema(name: str) -> pa.Schema:
    """The columns of a shard table as it lies on disk: `part` is added where paths are named."""
    schema = SHARD_TABLES[name]
    return schema.append(PART) if name in ("images", "examples") else schema


def plan_digest(plan: pa.Table) -> str:
    """A SHA-256 over path, content and label of planned images, whatever their order and shards."""
    ordered = plan.select(["path", "hash", "label"]).sort_by(
        [("path", "ascending"), ("hash", "ascending"), ("label", "ascending")]
    )
    digest = hashlib.sha256()
    for row in zip(*(column.to_pylist() for column in ordered.columns), strict=True):
        digest.update(canonical(row).encode())
    return digest.hexdigest()


@contextmanager
def made_whole(path: str | Path, description: Description) -> Iterator[Store]:
    """A new atlas that is at `path` once the block has ended, and leaves nothing if that fails.

    It is made under a temporary name beside `path` and renamed; the store stays open after the
    block and is the caller's to close.

    Raises: AtlasError if something is at `path` already, if another run is making it, or if it
    cannot be written.
    """
    target = Path(path)
    require_free(target)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        new = free_name_beside(target)
    try:
        store = Store.create(new, description)
        try:
            yield store
            with writing(target):
                os.rename(new, target)
                sync(target.parent)
            store.path = target
        except BaseException:
            store.close()
            raise
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def require_free(target: Path) -> None:
    """Checks that a new atlas can be put at `target`: nothing is there, or an empty folder.

    Raises: AtlasError if something is.
    """
    if target.is_symlink() or target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise AtlasError(f"{target} is there already: choose another folder for the new atlas.")


@contextmanager
def reading(path: str | Path) -> Iterator[tuple[Generation, pa.Table]]:
    """The tables and the plan of an atlas that nobody writes meanwhile.

    Raises: AtlasError if there is no atlas, or if a run is writing it.
    """
    folder = Path(path)
    generations.locate(folder)
    try:
        lock = FolderLock(folder, shared=True)
    except OSError as error:
        raise AtlasError(f"{folder} cannot be locked against other runs: {error}.") from error
    try:
        yield Generation.current(folder), _read_plan(folder)
    finally:
        lock.release()


def _refuse_other_content(folder: Path) -> None:
    """An atlas may be made where nothing is, or where making one was cut short."""
    if generations.exists(folder):
        return
    other = [
        entry.name
        for entry in folder.iterdir()
        if entry.name not in (".lock", TABLES, SHARDS, PLAN, HEADER) and not is_temporary(entry)
    ]
    if other:
        raise AtlasError(
            f"{folder} is neither an atlas nor empty (it holds {sorted(other)[0]!r}): "
            "choose another folder for the atlas."
        )


def _read_plan(folder: Path, shard: int | None = None) -> pa.Table:
    where = None if shard is None else pc.field("shard") == shard
    try:
        return pq.read_table(
            folder / PLAN, schema=PLAN_SCHEMA, filters=where, partitioning=None
        ).replace_schema_metadata(None)
    except (OSError, pa.ArrowInvalid) as error:
        raise AtlasError(f"{folder / PLAN} cannot be read: {error}.") from error


def _shard(plan: pa.Table, number: int) -> Shard:
    rows = plan.filter(pc.equal(plan.column("shard"), number))
    if not rows.num_rows:
        raise AtlasError(f"no shard {number} is planned.")
    images = rows.select(ImageEntry._fields).to_pylist()
    batches = rows.column("batch").to_pylist()
    return Shard(
        number,
        tuple(
            tuple(ImageEntry(**image) for _, image in group)
            for _, group in groupby(zip(batches, images, strict=True), key=lambda pair: pair[0])
        ),
    )


def _arranged(
    images: Sequence[ImageEntry], first: int, shard_size: int, batch_size: int
) -> pa.Table:
    """Images in shards and batches, as rows of the plan, the first shard numbered `first`."""
    ordered = sorted(images, key=lambda image: (image.folder, image.path))
    shards: list[int] = []
    batches: list[int] = []
    number = first
    for _, group in groupby(ordered, key=lambda image: image.folder):
        count = sum(1 for _ in group)
        for start in range(0, count, shard_size):
            size = min(shard_size, count - start)
            shards.extend([number] * size)
            batches.extend(place // batch_size for place in range(size))
            number += 1
    columns: list[Any] = [list(column) for column in zip(*ordered, strict=True)]
    try:
        return pa.table([*columns, shards, batches], schema=PLAN_SCHEMA)
    except (UnicodeEncodeError, pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise AtlasError(
            f"an image's path, folder, label, size or hash cannot be stored: {error}. "
            "Paths have to be valid Unicode."
        ) from error


def _refuse_changes(atlas: Path, known: pa.Table, entries: Mapping[str, ImageEntry]) -> None:
    problems: list[str] = []
    columns = [known.column(name).to_pylist() for name in ("path", "hash", "label")]
    for path, content, label in sorted(zip(*columns, strict=True), key=lambda row: row[0]):
        entry = entries.get(path)
        if entry is None:
            problems.append(f"{path} (gone)")
        elif entry.hash != content:
            problems.append(f"{path} (its content changed)")
        elif entry.label != label:
            problems.append(f"{path} (its label was {label} and is {entry.label})")
    if problems:
        more = f" and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        images = "images are" if len(problems) > 1 else "image is"
        raise AtlasError(
            f"{len(problems)} {images} not as counted in {atlas}: "
            f"{', '.join(problems[:_NAMED])}{more}. Nothing was changed. "
            "Put them back, or count into a new atlas (-o)."
        )


def _checked_shard(atlas: Path, number: int, tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    if set(tables) != set(SHARD_TABLES):
        raise AtlasError(
            f"a shard has the tables {', '.join(SHARD_TABLES)}; got {', '.join(sorted(tables))}."
        )
    parts = {name: checked(name, tables[name], SHARD_TABLES[name]) for name in SHARD_TABLES}
    planned = {
        (image.path, image.hash) for image in _shard(_read_plan(atlas, number), number).images
    }
    counted = list(
        zip(*(parts["images"].column(name).to_pylist() for name in ("path", "hash")), strict=True)
    )
    if len(counted) != len(planned) or set(counted) != planned:
        wrong = sorted(planned.symmetric_difference(counted)) or sorted(counted)
        raise AtlasError(
            f"the images of shard {number} are not those planned, or changed while they were "
            f"counted: {wrong[0][0]!r}. Run the same command again when they are at rest."
        )
    for name, table in parts.items():
        measures = [key for key in ("class", "count") if key in table.column_names]
        for key, least in zip(measures, (0, 1), strict=False):
            found = pc.min(table.column(key)).as_py()
            if found is not None and found < least:
                raise AtlasError(f"table '{name}' of shard {number} has a {key} below {least}.")
        if "count" in measures:
            keys = [(key, "ascending") for key in table.column_names if key != "count"]
            parts[name] = table.sort_by(keys)
    parts["examples"] = parts["examples"].sort_by(
        [("class", "ascending"), ("layer", "ascending"), ("channel", "ascending")]
    )
    for name in ("images", "examples"):
        parts[name] = parts[name].append_column(
            PART, pa.array(np.zeros(parts[name].num_rows), pa.int32())
        )
    return parts
