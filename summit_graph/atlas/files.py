"""Files that are whole or absent, whatever happens while they are written.

1. A file or folder is written under a temporary name (`TEMPORARY`), synced, renamed to its own, and
   the folder around it synced. After a kill or a power cut either the old one is there or the new.
2. One process at a time writes an atlas: it holds an advisory lock (`flock`) that the system lets
   go of when the process ends, however it ends.
3. What the operating system refuses (full disk, read-only folder, no permission) becomes an
   `AtlasError` that says where and what to do.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from summit_graph.atlas.schema import ROW_GROUP
from summit_graph.errors import AtlasError

TEMPORARY = ".tmp-"
"""Start of the name of everything that is not finished."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the system refuses inside into an AtlasError about the atlas at `path`."""
    try:
        yield
    except OSError as error:
        raise AtlasError(f"could not write to {path}: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    if error.errno in _FULL:
        return (
            f"{os.strerror(error.errno)}. Free some space there and run the same command again: "
            "what was finished is kept."
        )
    if error.errno in _FORBIDDEN:
        return (
            f"{os.strerror(error.errno)}. Choose a folder that can be written to, "
            "or give yourself the right to write there. Nothing was changed."
        )
    return f"{error}. What was finished is kept."


def temporary(folder: Path) -> Path:
    """A name inside `folder` that nobody else uses."""
    return folder / f"{TEMPORARY}{os.getpid()}-{uuid.uuid4().hex[:12]}"


def is_temporary(path: Path) -> bool:
    """Whether a killed run may have left it: true of every name that `temporary` makes."""
    return path.name.startswith(TEMPORARY)


def sync(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Writes a new file and syncs it; the folder is the caller's to sync."""
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


class TableWriter:
    """Writes one Parquet file from tables that come one after another, and syncs it at the end.

    zstd, statistics for every column, row groups of exactly `ROW_GROUP` rows: the file's bytes
    depend on its rows alone. Leaving the `with` by an exception leaves a file without a footer.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.schema = schema
        self.rows = 0
        self._waiting: list[pa.Table] = []
        self._file = pa.OSFile(os.fspath(path), "wb")
        self._writer = pq.ParquetWriter(self._file, schema, compression="zstd")

    def write(self, table: pa.Table) -> None:
        """Appends the rows of `table`, whose schema is the file's."""
        self.rows += table.num_rows
        self._waiting.append(table)
        waiting = sum(part.num_rows for part in self._waiting)
        if waiting >= ROW_GROUP:
            whole = waiting - waiting % ROW_GROUP
            joined = pa.concat_tables(self._waiting)
            self._waiting = [joined.slice(whole)]
            self._writer.write_table(joined.slice(0, whole), row_group_size=ROW_GROUP)

    def close(self) -> None:
        """Writes what waits and the footer, and syncs the file."""
        if self.rows % ROW_GROUP:
            self._writer.write_table(pa.concat_tables(self._waiting), row_group_size=ROW_GROUP)
        self._waiting = []
        self._writer.close()
        self._file.close()
        sync(self.path)

    def abandon(self) -> None:
        """Lets go of the file without finishing it; nothing happens if it is closed."""
        self._waiting = []
        self._writer.is_open = False
        self._file.close()

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self.abandon()


def write_table(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    """Writes a new Parquet file from tables of one schema, syncs it, returns its rows' number."""
    with TableWriter(path, schema) as writer:
        for table in tables:
            writer.write(table)
    return writer.rows


def replace_file(source: Path, target: Path) -> None:
    """Puts a synced file or link in place of another in the same folder, and syncs the folder."""
    os.replace(source, target)
    sync(target.parent)


def publish_folder(source: Path, target: Path) -> bool:
    """Renames a folder whose files are synced to its own name in the same folder.

    Returns whether it did: where `target` is there already and not empty, `source` is removed.
    """
    sync(source)
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        shutil.rmtree(source)
        return False
    sync(target.parent)
    return True


def point(link: Path, target: str) -> None:
    """Makes `link` a symbolic link to `target` at once, whatever it was; syncs the folder."""
    new = temporary(link.parent)
    os.symlink(target, new)
    try:
        replace_file(new, link)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def share(source: Path, target: Path) -> None:
    """The same file under a second name; a copy where the file system has no such names.

    For files that nobody changes once they are written.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (
            errno.EPERM,
            errno.EACCES,
            errno.EXDEV,
            errno.EMLINK,
            errno.ENOTSUP,
            errno.ENOSYS,
        ):
            raise
        shutil.copyfile(source, target)
        sync(target)


def free_name_beside(target: Path) -> Path:
    """A name beside `target` under which it can be made, what killed runs left there removed.

    Raises: AtlasError if another run is making `target`.
    """
    name = temporary(target.parent).name
    for leftover in target.parent.glob(f".{_globbed(target.name)}{TEMPORARY}*"):
        lock = FolderLock(leftover)
        try:
            shutil.rmtree(leftover)
        finally:
            lock.release()
    return target.parent / f".{target.name}{name}"


def _globbed(name: str) -> str:
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)


def discard(path: Path) -> None:
    """Removes a file or a folder that may be there in part or not at all.

    What cannot be removed stays, to be removed when the atlas is next opened for writing.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


class FolderLock:
    """The right to write in a folder (or, `shared`, the certainty that nobody else does).

    The file `.lock` in the folder is locked with `flock`, which ends with the process; worker
    processes forked from it hold on to the lock with it. Its text is the holder's process id.

    Raises: AtlasError if another has the lock, with its process id.
    """

    def __init__(self, folder: Path, shared: bool = False) -> None:
        self.path = folder / ".lock"
        self._shared = shared
        flags = os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT
        self._descriptor: int | None = os.open(self.path, flags | os.O_CLOEXEC, 0o666)
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
            if not shared:
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        except BlockingIOError as error:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            self._close()
            raise AtlasError(
                f"the atlas {folder} is in use by another run (process {holder or 'unknown'}). "
                "Wait for it to end, or end it; one run at a time writes an atlas."
            ) from error
        except OSError:
            self._close()
            raise

    def release(self) -> None:
        """Lets others have it; nothing happens the second time."""
        if self._descriptor is not None and not self._shared:
            os.ftruncate(self._descriptor, 0)
        self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
