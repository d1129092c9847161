"""Writes the list of jars that `summit-graph db up` fetches, for given versions.

    python scripts/pin_jars.py --neo4j 2026.08.1 --gds 2.26.0 --browser 5.24.0 --parquet \
        > summit_graph/graphdb/jars.txt
    python scripts/pin_jars.py --neo4j 5.26.30 --gds 2.13.9 > tests/graphdb/lts.txt

Each group is resolved by jgo as Maven would, with everything it needs at run time, and fetched into
the user's cache; the list has the SHA-256 and the size of what was fetched. A jar that a group has
in common with one before it is listed once. Takes some minutes where the cache is empty. Start the
server and run the tests before a new list is committed.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from jgo.maven import Dependency, MavenContext

from summit_graph.graphdb.jars import Jar

SERVER = ("org.neo4j.app:neo4j-server", "org.neo4j:neo4j")
GDS = ("org.neo4j.gds:proc", "org.neo4j.gds:opengds-extension", "org.neo4j.gds:proc-sysinfo")
BROWSER = "org.neo4j.client:neo4j-browser"
PARQUET = (
    "com.fasterxml.woodstox:woodstox-core:7.1.0",
    "org.apache.commons:commons-collections4:4.4",
    "org.apache.hadoop.thirdparty:hadoop-shaded-guava:1.3.0",
    "org.codehaus.woodstox:stax2-api:4.2.2",
)
"""What `neo4j-admin database import` needs for Parquet, and the server does not bring."""


def resolved(context: MavenContext, coordinates: Sequence[str], alone: bool) -> list[Dependency]:
    """The jars named, and unless `alone` everything they need at run time."""
    named = [context.create_dependency(name) for name in coordinates]
    if alone:
        return named
    first, others = context.resolver.resolve(named)
    return [jar for jar in (*first, *others) if jar.scope in ("compile", "runtime", None)]


def measured(group: str, dependency: Dependency) -> Jar:
    """The jar, fetched, with its SHA-256 and size."""
    content = dependency.artifact.resolve().read_bytes()
    parts = [dependency.groupId, dependency.artifactId, dependency.version]
    if dependency.classifier:
        parts.append(dependency.classifier)
    return Jar(group, ":".join(parts), hashlib.sha256(content).hexdigest(), len(content))


def pin(groups: dict[str, list[Dependency]]) -> Iterator[Jar]:
    """The jars of all groups, each once, in the order of their names."""
    listed: set[str] = set()
    for group, dependencies in groups.items():
        with ThreadPoolExecutor(12) as executor:
            jars = executor.map(partial(measured, group), dependencies)
            for jar in sorted(jars, key=lambda jar: jar.coordinates):
                if jar.coordinates not in listed:
                    listed.add(jar.coordinates)
                    yield jar


def main() -> None:
    """Prints the list."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--neo4j", required=True, help="version of the server")
    parser.add_argument("--gds", help="version of Graph Data Science (none: left out)")
    parser.add_argument("--browser", help="version of Neo4j Browser (none: left out)")
    parser.add_argument("--parquet", action="store_true", help="add what Parquet needs")
    chosen = parser.parse_args()

    context = MavenContext(timeout=60)
    groups = {"server": resolved(context, [f"{name}:{chosen.neo4j}" for name in SERVER], False)}
    if chosen.gds:
        groups["gds"] = resolved(context, [f"{name}:{chosen.gds}" for name in GDS], False)
    if chosen.browser:
        groups["browser"] = resolved(context, [f"{BROWSER}:{chosen.browser}"], True)
    if chosen.parquet:
        groups["parquet"] = resolved(context, PARQUET, True)
    print("# Written by scripts/pin_jars.py: group, Maven coordinates, SHA-256, bytes.")
    for jar in pin(groups):
        print(jar)


if __name__ == "__main__":
    main()
