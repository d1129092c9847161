from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import optional_package

from summit_graph.errors import ServerError
from summit_graph.graphdb.jars import GROUPS, PINNED, Jar, fetch, pinned

LTS = Path(__file__).with_name("lts.txt")


def jar_of(content: bytes, coordinates: str) -> Jar:
    return Jar("server", coordinates, hashlib.sha256(content).hexdigest(), len(content))


CONTENTS = {
    f"org.example.some:thing{number}:1.{number}": f"content {number}\n".encode() * 5000
    for number in range(30)
} | {"org.example:native:2.0:linux-x86_64": b"with a classifier"}
JARS = tuple(jar_of(content, coordinates) for coordinates, content in CONTENTS.items())


def place(coordinates: str) -> Path:
    group, name, version, *classifier = coordinates.split(":")
    return Path(*group.split("."), name, version, f"{'-'.join([name, version, *classifier])}.jar")


class Mirror:
    """A Maven repository on this machine, which notes what is asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        mirror = self

        class Handler(SimpleHTTPRequestHandler):
            def log_request(self, code: Any = "-", size: Any = "-") -> None:
                mirror.asked.append(self.path)

            def log_message(self, format: str, *values: Any) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def put(self, coordinates: str, content: bytes) -> None:
        path = self.folder / place(coordinates)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    @property
    def jars_asked(self) -> list[str]:
        return sorted(path for path in self.asked if path.endswith(".jar"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    optional_package("jgo")
    monkeypatch.setenv("M2_REPO", str(tmp_path / "cache"))
    return tmp_path / "cache"


def name_mirror(folder: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = folder / "jgo.conf"
    settings.write_text(f"[repositories]\ncentral = {address}\n", "utf-8")
    monkeypatch.setenv("JGO_CONFIG_FILE", str(settings))


@pytest.fixture
def mirror(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    (tmp_path / "mirror").mkdir()
    mirror = Mirror(tmp_path / "mirror")
    for coordinates, content in CONTENTS.items():
        mirror.put(coordinates, content)
    name_mirror(tmp_path, mirror.address, monkeypatch)
    thread = threading.Thread(target=mirror.server.serve_forever)
    thread.start()
    yield mirror
    mirror.server.shutdown()
    thread.join()
    mirror.server.server_close()


@pytest.fixture
def no_network(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        address = f"http://127.0.0.1:{server.server_port}"
    name_mirror(tmp_path, address, monkeypatch)


class Counted:
    """Progress that counts."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None]] = []
        self.done = 0

    @contextmanager
    def stage(self, title: str, total: int | None, unit: str) -> Iterator[Counted]:
        self.stages.append((title, total))
        yield self

    def advance(self, count: int = 1) -> None:
        self.done += count

    def note(self, text: str) -> None:
        pass

    def warn(self, message: str) -> None:
        raise AssertionError(message)


@pytest.mark.parametrize("path", [PINNED, LTS])
def test_a_list_pins_each_jar_once(path: Path) -> None:
    jars = pinned(path)
    assert len({jar.coordinates for jar in jars}) == len(jars)
    for jar in jars:
        assert jar.group in GROUPS
        assert len(bytes.fromhex(jar.sha256)) == 32
        assert jar.size > 0
        assert len(jar.coordinates.split(":")) in (3, 4)


def test_the_list_pins_the_server_and_what_goes_with_it() -> None:
    listed = {(jar.group, jar.coordinates) for jar in pinned()}
    assert {
        ("server", "org.neo4j.app:neo4j-server:2026.08.1"),
        ("server", "org.neo4j:neo4j:2026.08.1"),
        ("gds", "org.neo4j.gds:proc:2.26.0"),
        ("gds", "org.neo4j.gds:opengds-extension:2.26.0"),
        ("browser", "org.neo4j.client:neo4j-browser:5.24.0"),
        ("parquet", "org.codehaus.woodstox:stax2-api:4.2.2"),
    } <= listed


@pytest.mark.parametrize("path", [PINNED, LTS])
def test_a_list_has_no_address(path: Path) -> None:
    assert "//" not in path.read_text("utf-8")


def test_jars_are_fetched_into_the_users_cache(mirror: Mirror, cache: Path) -> None:
    progress = Counted()
    paths = fetch(JARS, progress)
    assert paths == tuple(cache / place(jar.coordinates) for jar in JARS)
    assert [path.read_bytes() for path in paths] == list(CONTENTS.values())
    assert progress.stages == [("fetching Neo4j", len(JARS))]
    assert progress.done == len(JARS)


def test_what_is_cached_is_not_fetched_again(mirror: Mirror) -> None:
    fetch(JARS)
    mirror.asked.clear()
    progress = Counted()
    fetch(JARS, progress)
    assert mirror.asked == []
    assert progress.stages == []


@pytest.mark.parametrize(
    "damaged", [b"", b"content 7\n" * 4999, b"cOntent 7\n" * 5000], ids=["empty", "cut", "changed"]
)
def test_a_damaged_jar_is_fetched_again(mirror: Mirror, damaged: bytes) -> None:
    path = fetch(JARS)[7]
    path.write_bytes(damaged)
    mirror.asked.clear()
    assert fetch(JARS)[7].read_bytes() == CONTENTS[JARS[7].coordinates]
    assert mirror.jars_asked == [f"/{place(JARS[7].coordinates)}"]


@pytest.mark.parametrize("wrong", [b"another", b"cOntent 3\n" * 5000])
def test_a_wrong_jar_of_a_mirror_is_refused_and_not_kept(
    mirror: Mirror, cache: Path, wrong: bytes
) -> None:
    mirror.put(JARS[3].coordinates, wrong)
    with pytest.raises(ServerError, match=r"thing3:1\.3.*is not the jar"):
        fetch(JARS)
    assert not (cache / place(JARS[3].coordinates)).exists()
    mirror.put(JARS[3].coordinates, CONTENTS[JARS[3].coordinates])
    fetch(JARS)


def test_a_jar_that_the_mirror_lacks_is_named(mirror: Mirror) -> None:
    (mirror.folder / place(JARS[3].coordinates)).unlink()
    with pytest.raises(ServerError, match=r"thing3:1\.3 could not be fetched"):
        fetch(JARS)


def test_without_network_one_message_says_what_is_missing(no_network: None) -> None:
    with pytest.raises(ServerError, match=r"lacks jars .*\(31\).* needs the network"):
        fetch(JARS)


def test_what_is_cached_needs_no_network(no_network: None, cache: Path) -> None:
    for coordinates, content in CONTENTS.items():
        path = cache / place(coordinates)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert len(fetch(JARS)) == len(JARS)
    (cache / place(JARS[0].coordinates)).unlink()
    with pytest.raises(ServerError, match=r"lacks jars .*\(1\)"):
        fetch(JARS)


def test_two_processes_do_not_fetch_the_same_jar(mirror: Mirror, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(map(str, JARS)), "utf-8")
    code = (
        "import sys; from pathlib import Path; from summit_graph.graphdb.jars import *;"
        "fetch(pinned(Path(sys.argv[1])))"
    )
    others = [subprocess.Popen([sys.executable, "-c", code, str(listed)]) for _ in range(3)]
    assert [other.wait() for other in others] == [0, 0, 0]
    assert mirror.jars_asked == sorted(f"/{place(jar.coordinates)}" for jar in JARS)


def test_a_cache_that_cannot_be_written_to_is_named(
    tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("M2_REPO", str(tmp_path / "file" / "cache"))
    with pytest.raises(ServerError, match=r"file/cache .*cannot be .*M2_REPO"):
        fetch(JARS)


def test_without_jgo_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jgo.config", None)
    with pytest.raises(ServerError, match=r"jgo.*pip install 'summit-graph\[neo4j\]'"):
        fetch(JARS)
