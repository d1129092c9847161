"""The jars that make up the local Neo4j: which ones, fetched and checked.

1. `jars.txt` pins each jar: its group (the server, Graph Data Science, Neo4j Browser, what reading
   Parquet needs), its Maven coordinates, SHA-256 and size. `scripts/pin_jars.py` writes it.
2. jgo knows where Maven Central is, the user's mirror and the user's cache (`~/.m2/repository`, or
   `M2_REPO`). What the cache lacks is fetched, several jars at once; one process fetches at a time.
3. Each jar is checked against its SHA-256 every time, which takes a fraction of a second. A wrong
   or cut-off file is fetched again.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from summit_graph.errors import ServerError
from summit_graph.reporting import Progress, Reports

if TYPE_CHECKING:
    from jgo.maven import Artifact, MavenContext

PINNED = Path(__file__).with_name("jars.txt")
GROUPS = ("server", "gds", "browser", "parquet")
INSTALL = "pip install 'summit-graph[neo4j]'"

_THREADS = 12
_ATTEMPTS = 2
_TIMEOUT = 20
"""Seconds without an answer before a jar counts as out of reach."""

_REFUSED = {
    errno.EACCES,
    errno.EDQUOT,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


@dataclass(frozen=True)
class Jar:
    """One pinned jar.

    group: one of GROUPS. coordinates: group:artifact:version, with :classifier where it has one.
    sha256: of its content, in hexadecimal. size: bytes.
    """

    group: str
    coordinates: str
    sha256: str
    size: int

    def __str__(self) -> str:
        return f"{self.group} {self.coordinates} {self.sha256} {self.size}"


def pinned(path: Path = PINNED) -> tuple[Jar, ...]:
    """The jars of a list like `jars.txt`; lines that start with # are remarks."""
    lines = (line.split() for line in path.read_text("utf-8").splitlines())
    return tuple(
        Jar(line[0], line[1], line[2], int(line[3]))
        for line in lines
        if line and not line[0].startswith("#")
    )


def fetch(jars: Sequence[Jar], progress: Progress | None = None) -> tuple[Path, ...]:
    """Where the jars are in the user's cache, in their order; fetches those it lacks.

    Every file returned has the pinned content.
    Raises: ServerError if jgo is not installed, the network or the mirror cannot be reached, it has
    not got a jar or hands out another one, or the cache cannot be written to.
    """
    reports = Reports(progress)
    context = _context()
    artifacts = [_artifact(context, jar) for jar in jars]
    paths = tuple(_cached(artifact) for artifact in artifacts)
    with ThreadPoolExecutor(_THREADS) as executor:
        if all(executor.map(_is_whole, paths, jars)):
            return paths
        with _alone(context.repo_cache):
            whole = executor.map(_is_whole, paths, jars)
            lacking = [number for number, fine in enumerate(whole) if not fine]
            with reports.stage("fetching Neo4j", len(lacking), "jar") as stage:
                tasks = {
                    executor.submit(_fetch, artifacts[number], jars[number]): jars[number]
                    for number in lacking
                }
                try:
                    for task in as_completed(tasks):
                        with _explained(context, tasks[task], len(lacking)):
                            task.result()
                        stage.advance()
                finally:
                    executor.shutdown(wait=True, cancel_futures=True)
                stage.note(f"{sum(jars[number].size for number in lacking) / 1e6:.0f} MB")
    return paths


def _context() -> MavenContext:
    """jgo's view of Maven, with the repositories and the cache of the user's settings."""
    try:
        from jgo.config import GlobalSettings
        from jgo.maven import MavenContext
    except ModuleNotFoundError as error:
        raise ServerError(
            f"the package jgo, which fetches the Neo4j server, is not installed: {INSTALL}"
        ) from error
    settings = GlobalSettings.load()
    repositories = MavenContext().remote_repos | settings.repositories
    return MavenContext(repo_cache=settings.repo_cache, remote_repos=repositories, timeout=_TIMEOUT)


def _artifact(context: MavenContext, jar: Jar) -> Artifact:
    group, name, version, *classifier = jar.coordinates.split(":")
    return context.project(group, name).at_version(version).artifact(*classifier)


def _cached(artifact: Artifact) -> Path:
    return artifact.context.repo_cache / artifact.component.path_prefix / artifact.cached_filename


def _is_whole(path: Path, jar: Jar) -> bool:
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise ServerError(f"{path} cannot be read: {error.strerror}.") from error
    return len(content) == jar.size and hashlib.sha256(content).hexdigest() == jar.sha256


def _fetch(artifact: Artifact, jar: Jar) -> None:
    path = _cached(artifact)
    for attempt in range(_ATTEMPTS):
        path.unlink(missing_ok=True)
        try:
            artifact.resolve()
        except OSError as error:
            if error.errno in _REFUSED or attempt + 1 == _ATTEMPTS:
                raise
            continue
        if _is_whole(path, jar):
            return
    path.unlink(missing_ok=True)
    raise ServerError(
        f"{jar.coordinates}, as it was fetched, is not the jar that summit-graph expects (its "
        f"SHA-256 is not {jar.sha256}). Something on the way changed it or cut it off: run the "
        "command again, or use another network or Maven mirror. Nothing was started."
    )


@contextmanager
def _explained(context: MavenContext, jar: Jar, lacking: int) -> Iterator[None]:
    """Turns what goes wrong while a jar is fetched into a ServerError."""
    try:
        yield
    except OSError as error:
        if error.errno in _REFUSED:
            raise ServerError(
                f"the cache {context.repo_cache} cannot be written to: {error.strerror}. Make "
                "room or give yourself the right to write there, or set M2_REPO to another folder."
            ) from error
        raise ServerError(
            f"the cache {context.repo_cache} lacks jars of the Neo4j server ({lacking}), and they "
            f"could not be fetched: {_without_wrapping(error)}. The first start needs the network "
            "(a proxy is taken from HTTPS_PROXY, a Maven mirror from jgo's settings). What was "
            "fetched is kept; run the command again."
        ) from error
    except RuntimeError as error:
        raise ServerError(
            f"{jar.coordinates} could not be fetched: {error}. If jgo's settings name a mirror, "
            "see that it has all of Maven Central."
        ) from error


def _without_wrapping(error: BaseException) -> str:
    """What a network error says at its core, on one line."""
    while error.__context__ is not None:
        error = error.__context__
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Waits until no other process of this user fetches jars into the cache."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(
            cache / ".summit-graph.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666
        )
    except OSError as error:
        raise ServerError(
            f"the cache {cache} cannot be written to: {error.strerror}. Give yourself the right to "
            "write there, or set M2_REPO to another folder."
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
