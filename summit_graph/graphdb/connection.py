"""Where the database is, who asks, and what its refusals mean.

1. The address is the one that was given, else `NEO4J_URI`, else that of the local server that runs
   (`summit-graph db up`). The user is the one given, else `NEO4J_USERNAME`, else `neo4j`.
2. The password is `NEO4J_PASSWORD`; for the local server, where that is not set, the one in its
   password file. It is never taken from a command line, and never in a message.
3. Errors of the driver become `DatabaseError`, with what to do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import neo4j
from neo4j import exceptions

from summit_graph.errors import DatabaseError, UsageError
from summit_graph.graphdb import server

URI_VARIABLE = "NEO4J_URI"
USER_VARIABLE = "NEO4J_USERNAME"
PASSWORD_VARIABLE = "NEO4J_PASSWORD"
USER = "neo4j"
SCHEMES = ("bolt", "bolt+s", "bolt+ssc", "neo4j", "neo4j+s", "neo4j+ssc")

_TIMEOUT = 15.0
"""Seconds to wait for a connection."""

_RETRIES = 30.0
"""Seconds for which a transaction that failed for a passing reason is tried again."""


@dataclass(frozen=True)
class Connection:
    """A database and who asks it. database: None for the user's own default."""

    uri: str
    user: str
    password: str = field(repr=False)
    database: str | None = None


def address_of(uri: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The address that an argument or the environment names; None for the local server's."""
    return uri or environment.get(URI_VARIABLE) or None


def connect(
    uri: str | None = None,
    user: str | None = None,
    database: str | None = None,
    home: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Connection:
    """The connection that arguments, environment and local server amount to.

    uri: `neo4j+s://host`, `bolt://host:port`, …. home: the local server's folder, where it is not
    the default one. Nothing is sent yet.
    Raises: DatabaseError if there is no address, no password, or the address is none; UsageError if
    the address has a password in it.
    """
    address = address_of(uri, environment)
    password = environment.get(PASSWORD_VARIABLE)
    local = server.status(home)
    if address is None:
        if local is None or not local.running:
            raise DatabaseError(
                "no Neo4j is known: no local server runs, and no address is given. Start one with "
                f"`summit-graph db up`, or name another with --uri or in {URI_VARIABLE}."
            )
        address = local.bolt_uri
    scheme, separator, rest = address.partition("://")
    if not separator or scheme not in SCHEMES or not rest:
        raise DatabaseError(
            f"{_shown(address)!r} is no address of a Neo4j: it has to be like "
            "'neo4j+s://example.org' or 'bolt://127.0.0.1:7687' "
            f"({', '.join(SCHEMES)} are known)."
        )
    if "@" in rest:
        raise UsageError(
            f"the address holds a user or password. Leave it out; they belong into {USER_VARIABLE} "
            f"and {PASSWORD_VARIABLE}."
        )
    if password is None:
        if local is None or address != local.bolt_uri:
            raise DatabaseError(
                f"there is no password for {address}. Set the variable {PASSWORD_VARIABLE} "
                "(a password on the command line could be seen by others)."
            )
        password = local.password()
    return Connection(address, user or environment.get(USER_VARIABLE) or USER, password, database)


def _shown(address: str) -> str:
    return f"…@{address.rpartition('@')[2]}" if "@" in address else address


@contextmanager
def opened(connection: Connection) -> Iterator[neo4j.Driver]:
    """A driver that has reached the database. Closed at the end.

    Raises: DatabaseError as `translated` does.
    """
    with translated(connection):
        try:
            driver = neo4j.GraphDatabase.driver(
                connection.uri,
                auth=(connection.user, connection.password),
                connection_timeout=_TIMEOUT,
                max_transaction_retry_time=_RETRIES,
                notifications_min_severity="OFF",
                user_agent="summit-graph",
            )
        except (exceptions.ConfigurationError, ValueError) as error:
            raise DatabaseError(f"{connection.uri} cannot be used: {error}.") from error
        with driver:
            with read_session(driver, connection) as session:
                session.run("RETURN 1").consume()
            yield driver


def read_session(driver: neo4j.Driver, connection: Connection) -> neo4j.Session:
    """A session in which the server refuses to write."""
    return driver.session(
        database=connection.database, default_access_mode=neo4j.READ_ACCESS, fetch_size=10_000
    )


def write_session(driver: neo4j.Driver, connection: Connection) -> neo4j.Session:
    """A session that may write: for loading and unloading alone."""
    return driver.session(database=connection.database, default_access_mode=neo4j.WRITE_ACCESS)


@contextmanager
def translated(connection: Connection) -> Iterator[None]:
    """Whatever the driver or the server raises inside becomes a `DatabaseError`."""
    try:
        yield
    except exceptions.AuthError as error:
        raise DatabaseError(
            f"{connection.uri} does not let {connection.user!r} in: {_said(error)} Check "
            f"{USER_VARIABLE} and {PASSWORD_VARIABLE}."
        ) from error
    except exceptions.ClientError as error:
        raise DatabaseError(_refused(connection, error)) from error
    except exceptions.TransientError as error:
        raise DatabaseError(_passing(connection, error)) from error
    except (exceptions.ServiceUnavailable, exceptions.SessionExpired, OSError) as error:
        raise DatabaseError(
            f"{connection.uri} cannot be reached, or the connection broke: {_said(error)} "
            "What was committed is kept. See that the server runs (`summit-graph db status` for "
            "the local one) and run the command again."
        ) from error
    except (exceptions.Neo4jError, exceptions.DriverError) as error:
        raise DatabaseError(f"{connection.uri}: {_said(error)}") from error


def _refused(connection: Connection, error: exceptions.ClientError) -> str:
    code = error.code or ""
    if code.endswith("Database.DatabaseNotFound"):
        return (
            f"{connection.uri} has no database {connection.database!r}. Name another with "
            "--database, or leave it out for the user's default."
        )
    if code.endswith("Statement.AccessMode"):
        return f"{connection.uri} refused to write in a session that only reads: {_said(error)}"
    return f"{connection.uri} refused: {_said(error)}"


def _passing(connection: Connection, error: exceptions.TransientError) -> str:
    if "OutOfMemory" in (error.code or "") or "MemoryPoolOutOfMemory" in (error.code or ""):
        return (
            f"{connection.uri} ran into its memory limit: {_said(error)} What was committed is "
            "kept. Load in smaller batches (--batch), or give the server more memory "
            "(`summit-graph db up --heap 2g` for the local one), and run the command again."
        )
    return (
        f"{connection.uri} could not go on, and trying again for {_RETRIES:.0f} s did not help: "
        f"{_said(error)} What was committed is kept; run the command again."
    )


def _said(error: BaseException) -> str:
    """What an error says, on one line, with a full stop."""
    message: Any = getattr(error, "message", None) or str(error) or type(error).__name__
    text = " ".join(str(message).split())
    return text if text.endswith((".", "!", "?")) else f"{text}."
