"""The Cypher queries of the folder `cypher/`: what each takes and answers, and how one is run.

1. A query is a file. Its header, a comment, declares parameters, columns and needs; `parse` holds
   it to that: what the text uses is declared, what is declared is used (`cypher/README.md`).
2. Text from a command line becomes parameters by the declared types (`values`).
3. `run` is one read transaction in a session that the server lets only read. Before the query it
   looks whether the models are there, whole, and have what the query needs; behind it, whether they
   still are as they were, so that no rows of a half-changed model get out.
4. Parameters go as parameters: nothing a user says becomes part of a query's text.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import neo4j
from neo4j import graph

from summit_graph.errors import DatabaseError, UsageError
from summit_graph.graphdb.connection import Connection, read_session, translated

KEYS: Mapping[str, str] = {
    "model": "Model",
    "other_model": "Model",
    "class": "Class",
    "classes": "Class",
    "others": "Class",
    "neuron": "Neuron",
    "image": "Image",
}
"""Name of a parameter that holds the key of a node, or a list of keys -> label of the node."""

NEEDS = ("edges", "counts", "gds")
"""What a query can need: all edges of every class's graph; an atlas that was counted, not imported
from published graphs; Graph Data Science with weighted source nodes."""

_FIND: Mapping[str, str] = {
    "Model": "`summit-graph query models` lists the keys of models",
    "Class": "the query `find-class` finds the keys of classes",
    "Neuron": "a key is <model>/<layer>/<channel>, as the query `attribution-graph` has them",
    "Image": "the query `examples` has keys of images",
}

_GDS = (2, 26)
"""The first version of Graph Data Science known to take a bias for each source node."""

_CLOSE = 3
"""How many near names a message lists."""


@dataclass(frozen=True)
class Type:
    """The type of a value.

    item: text, count (0 or more), integer, share (0 to 1), number, boolean, node or relationship;
    many: a list of these; optional: it may be null.
    """

    item: str
    many: bool = False
    optional: bool = False

    def __str__(self) -> str:
        name = f"list of {self.item}" if self.many else self.item
        return f"{name} or null" if self.optional else name

    def takes(self, value: object) -> bool:
        """Whether a value is of this type."""
        if value is None:
            return self.optional
        if self.many:
            return isinstance(value, (list, tuple)) and all(map(self._fits, value))
        return self._fits(value)

    def _fits(self, value: object) -> bool:
        if isinstance(value, bool):
            return self.item == "boolean"
        if isinstance(value, (int, float)):
            if self.item in ("count", "integer"):
                return isinstance(value, int) and (value >= 0 or self.item == "integer")
            if self.item == "share":
                return 0 <= value <= 1
            return self.item == "number" and math.isfinite(value)
        return isinstance(value, _CLASSES[self.item])


_CLASSES: Mapping[str, tuple[type, ...]] = {
    "text": (str,),
    "count": (),
    "integer": (),
    "share": (),
    "number": (),
    "boolean": (),
    "node": (graph.Node,),
    "relationship": (graph.Relationship,),
}


@dataclass(frozen=True)
class Parameter:
    """A parameter of a query. default: None also where it is required."""

    name: str
    type: Type
    required: bool
    default: Any
    meaning: str

    @property
    def label(self) -> str | None:
        """The label of the nodes whose keys it holds; None if it holds no keys."""
        return KEYS.get(self.name)


@dataclass(frozen=True)
class Column:
    """A column of a query's rows."""

    name: str
    type: Type
    meaning: str


@dataclass(frozen=True)
class Query:
    """A query of the folder `cypher/`.

    summary: what it answers, a sentence; details: more about it, in paragraphs. needs: some of
    `NEEDS`. text: the file, header and all, as it runs.
    """

    name: str
    summary: str
    details: str
    parameters: tuple[Parameter, ...]
    columns: tuple[Column, ...]
    needs: frozenset[str]
    text: str


@dataclass(frozen=True)
class Result:
    """The rows that a query answered with, as the driver hands them over."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def plain(self) -> list[list[Any]]:
        """The rows in values that JSON has; a node becomes id, labels and properties."""
        return [[_plain(value) for value in row] for row in self.rows]


@cache
def folder() -> Path:
    """The folder of the queries: in the installed package, or beside it in the repository."""
    package = Path(__file__).parents[1]
    inside = package / "cypher"
    return inside if inside.is_dir() else package.parent / "cypher"


@cache
def names() -> tuple[str, ...]:
    """The names of all queries, sorted."""
    return tuple(sorted(path.stem for path in folder().glob("*.cypher")))


@cache
def query(name: str) -> Query:
    """The query called `name`. Raises: UsageError if there is none; the nearest are listed."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=_CLOSE, cutoff=0.4)
        parts = [other for other in names() if name and name in other and other not in near]
        listed = ", ".join([*near, *parts])
        nearest = f"The nearest are {listed}." if listed else f"There are {', '.join(names())}."
        raise UsageError(f"no query is called {name!r}. {nearest}")
    return parse(name, (folder() / f"{name}.cypher").read_text(encoding="utf-8"))


def values(query: Query, texts: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Parameters from text, as a command line has it: (name, text) each.

    A list is a JSON array, or its parameter given several times. Raises: UsageError for an unknown
    parameter, for a second value where there can be one only, and for text of another type.
    """
    known = {parameter.name: parameter for parameter in query.parameters}
    found: dict[str, Any] = {}
    for name, text in texts:
        if name not in known:
            raise _unknown(query, [name])
        kind = known[name].type
        value = _from_text(kind, text)
        if value is None:
            raise _mistyped(query, known[name], text)
        if name in found and not kind.many:
            raise UsageError(f"the query {query.name!r} takes one {name}, and was given two.")
        found[name] = [*found.get(name, []), *value] if kind.many else value
    return found


def _from_text(kind: Type, text: str) -> Any:
    """The value that a text stands for; None if it is none of this type."""
    value: Any = text
    if kind.many and text.lstrip().startswith("["):
        try:
            value = json.loads(text)
        except ValueError:
            return None
    elif kind.many:
        value = [text]
    elif kind.item != "text":
        try:
            value = int(text) if kind.item == "count" else float(text)
        except ValueError:
            return None
    return value if kind.takes(value) else None


def complete(query: Query, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """These parameters and the defaults of the others.

    Raises: UsageError for an unknown, a missing or a mistyped parameter.
    """
    known = {parameter.name: parameter for parameter in query.parameters}
    if strange := [name for name in parameters if name not in known]:
        raise _unknown(query, strange)
    missing = [name for name in known if known[name].required and name not in parameters]
    if missing:
        raise UsageError(
            f"the query {query.name!r} needs {_joined(missing)}. {_listed(query)} Give each with "
            "--param NAME=VALUE."
        )
    for name, value in parameters.items():
        if not known[name].type.takes(value):
            raise _mistyped(query, known[name], value)
    return {name: parameters.get(name, known[name].default) for name in known}


def run(
    driver: neo4j.Driver,
    connection: Connection,
    query: Query,
    parameters: Mapping[str, Any] | None = None,
) -> Result:
    """Runs a query in a session that can only read.

    parameters: by name, of the declared types; keys where `KEYS` says so. Left out: the defaults.
    Raises: UsageError as `complete` does, and for keys of different models; DatabaseError if a
    model, class, neuron or image is not there, if its model is not loaded whole, lacks what the
    query needs, or changes meanwhile, if Graph Data Science is missing, and as
    `connection.translated` does.
    """
    given = complete(query, parameters or {})
    with translated(connection), read_session(driver, connection) as session:
        return session.execute_read(_answer, connection.uri, query, given)


def _answer(
    transaction: neo4j.ManagedTransaction, uri: str, query: Query, given: Mapping[str, Any]
) -> Result:
    if "gds" in query.needs:
        _require_gds(transaction, uri)
    keys = _keys(query, given)
    before = _concerned(transaction, uri, query, keys)
    # The text is that of a file in the package; what users say is in the parameters.
    answer = transaction.run(cast(Any, query.text), dict(given))
    columns = tuple(answer.keys())
    rows = tuple(tuple(record) for record in answer)
    if keys and _concerned(transaction, uri, query, keys) != before:
        raise DatabaseError(
            f"{_joined(sorted({model['key'] for model in before}))} was loaded anew or unloaded "
            "while the query ran. Run it again."
        )
    return Result(columns, rows)


# What a query concerns, and whether that is there


def _keys(query: Query, given: Mapping[str, Any]) -> dict[str, list[str]]:
    """Label -> the keys that the parameters name."""
    keys: dict[str, list[str]] = {}
    for parameter in query.parameters:
        value = given[parameter.name]
        if parameter.label is not None and value is not None:
            keys.setdefault(parameter.label, []).extend(value if parameter.type.many else [value])
    return keys


_THERE = """
RETURN COLLECT {
         MATCH (m:Model)
         WHERE m.key IS :: STRING AND m.loaded IS NOT NULL
         RETURN m {.key, .loaded, .edges, .partial, .fingerprint, .loader}
         ORDER BY m.key
       } AS models,
       COLLECT { MATCH (c:Class) WHERE c.key IN $Class RETURN c.key } AS Class,
       COLLECT { MATCH (n:Neuron) WHERE n.key IN $Neuron RETURN n.key } AS Neuron,
       COLLECT { MATCH (i:Image) WHERE i.key IN $Image RETURN i.key } AS Image
"""


def _concerned(
    transaction: neo4j.ManagedTransaction,
    uri: str,
    query: Query,
    keys: Mapping[str, Sequence[str]],
) -> list[Mapping[str, Any]]:
    """The models that the keys belong to.

    Raises: DatabaseError if a node or a model is missing, or a model is not whole or lacks what the
    query needs; UsageError if classes, neurons and images are of different models.
    """
    asked = {label: list(keys.get(label, [])) for label in ("Class", "Neuron", "Image")}
    answer = transaction.run(_THERE, asked).single(strict=True)
    models = {model["key"]: model for model in answer["models"]}
    concerned: dict[str, Mapping[str, Any]] = {}
    child: tuple[str, str] | None = None
    for label, wanted in keys.items():
        there = models if label == "Model" else frozenset(answer[label])
        for key in wanted:
            owner = key if label == "Model" else _owner(label, key, models)
            # What a model lacks as a whole explains the nodes that are missing of it.
            if owner in models:
                require(query, models[owner], uri)
            if key not in there or owner is None:
                near = difflib.get_close_matches(key, models, n=_CLOSE, cutoff=0.4)
                known = f" It has {_joined(near)}." if label == "Model" and near else ""
                raise DatabaseError(f"{uri} has no {label.lower()} {key!r}; {_FIND[label]}.{known}")
            if label != "Model":
                child = child or (owner, key)
                if owner != child[0]:
                    raise UsageError(f"{child[1]!r} and {key!r} are of different models.")
            concerned[owner] = models[owner]
    return [concerned[key] for key in sorted(concerned)]


_CHILDREN: Mapping[str, str] = {
    "Class": r"/class/\d+",
    "Image": r"/image/\d+",
    "Neuron": r"/.+/\d+",
}
"""Label -> what follows the model's key in a key."""


def _owner(label: str, key: str, models: Collection[str]) -> str | None:
    """The model whose node a key is, by the model's key: the longest that fits."""
    fitting = [
        model
        for model in models
        if key.startswith(model)
        and re.fullmatch(_CHILDREN[label], key[len(model) :], flags=re.DOTALL)
    ]
    return max(fitting, key=len, default=None)


def require(query: Query, model: Mapping[str, Any], uri: str) -> None:
    """Checks that a model is whole and has what the query needs.

    model: properties of its node `Model`; what is null may be left out. Raises: DatabaseError.
    """
    if not model["loaded"]:
        raise DatabaseError(
            f"{uri} has the model {model['key']!r} only in part: it is being loaded or removed, or "
            "that was cut off. Wait, or run `summit-graph load` or `summit-graph unload` again."
        )
    if "counts" in query.needs and model.get("partial"):
        raise DatabaseError(
            f"the query {query.name!r} needs what only counting the images tells, and the model "
            f"{model['key']!r} was imported from published attribution graphs, which do not say it."
        )
    if "edges" in query.needs and model["edges"] != "graph":
        raise DatabaseError(
            f"the query {query.name!r} needs all edges of every class's graph, and {uri} has of "
            f"{model['key']!r} only those of the attribution graphs. Load it again with "
            "`summit-graph load ATLAS --edges graph`."
        )


def _require_gds(transaction: neo4j.ManagedTransaction, uri: str) -> None:
    """Raises: DatabaseError if Graph Data Science is missing or too old."""
    there = transaction.run("SHOW FUNCTIONS YIELD name WHERE name = 'gds.version' RETURN name")
    version = "none"
    if there.single() is not None:
        version = transaction.run("RETURN gds.version()").single(strict=True).value()
        found = re.match(r"(\d+)\.(\d+)", version)
        if found is not None and (int(found[1]), int(found[2])) >= _GDS:
            return
    raise DatabaseError(
        f"this query needs Graph Data Science {'.'.join(map(str, _GDS))} or newer, which can "
        f"weight source nodes; {uri} has {version}. The query `pagerank` answers the same without."
    )


# What users are told


def _unknown(query: Query, strange: Sequence[str]) -> UsageError:
    return UsageError(f"the query {query.name!r} takes no {_joined(strange)}. {_listed(query)}")


def _mistyped(query: Query, parameter: Parameter, value: object) -> UsageError:
    meaning = {
        "count": "a whole number, 0 or more",
        "share": "a number from 0 to 1",
        "text": "text",
    }[parameter.type.item]
    if parameter.type.many:
        meaning = f'a list, each {meaning}: ["…", "…"], or the parameter several times'
    return UsageError(
        f"{parameter.name} of the query {query.name!r} is {value!r}; it has to be {meaning}."
    )


def _listed(query: Query) -> str:
    if not query.parameters:
        return "It takes none."
    return f"It takes {', '.join(_shown(parameter) for parameter in query.parameters)}."


def _shown(parameter: Parameter) -> str:
    if parameter.required:
        return parameter.name
    return f"{parameter.name} (else {json.dumps(parameter.default)})"


def _joined(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


# Plain values


def _plain(value: Any) -> Any:
    """A value of the driver in values that JSON has."""
    if isinstance(value, graph.Node):
        return {
            "id": value.element_id,
            "labels": sorted(value.labels),
            "properties": _plain(dict(value)),
        }
    if isinstance(value, graph.Relationship):
        ends = (None if end is None else end.element_id for end in value.nodes)
        start, end = ends
        return {
            "id": value.element_id,
            "type": value.type,
            "start": start,
            "end": end,
            "properties": _plain(dict(value)),
        }
    if isinstance(value, graph.Path):
        return {
            "nodes": [_plain(node) for node in value.nodes],
            "relationships": [_plain(edge) for edge in value.relationships],
        }
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value


# Headers

_SECTIONS = ("Parameters:", "Columns:", "Needs:", "In Neo4j Browser:")
_ENTRY = re.compile(r"  (\w+) \(([a-z ]+)(?:, (.+?))?\): (.+)")
_TYPE = re.compile(r"(list of )?(\w+?)( or null)?")
_BROWSER = re.compile(r"  :param (\w+) => (.+);")
_SKIPPED = re.compile(
    r"//[^\n]*|/\*.*?\*/|'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|`[^`]*`", re.DOTALL
)


def parse(name: str, text: str) -> Query:
    """A query from the text of its file, as `cypher/README.md` lays it out.

    Raises: ValueError, with what is wrong, if the header is not laid out so, or if it and the query
    disagree about parameters or columns.
    """
    lines = text.splitlines()
    length = next((n for n, line in enumerate(lines) if not line.startswith("//")), len(lines))
    header = [line.removeprefix("//").removeprefix(" ") for line in lines[:length]]
    summary = header[0] if header else ""
    if not re.fullmatch(r"[A-Z].{10,110}\.", summary):
        raise ValueError(f"{name}: the first line has to be a comment with one sentence")
    details, sections = _sections(name, header[1:])
    parameters = tuple(_parameter(name, entry) for entry in sections["Parameters:"])
    columns = tuple(_column(name, entry) for entry in sections["Columns:"])
    needs = [entry.strip() for entry in sections["Needs:"]]
    if strange := sorted(set(needs) - set(NEEDS)):
        raise ValueError(f"{name}: needs {strange}; there are {NEEDS}")
    _examples(name, parameters, sections["In Neo4j Browser:"])
    body = _SKIPPED.sub(lambda skipped: "" if skipped[0].startswith("/") else "''", text)
    used = sorted(set(re.findall(r"\$(\w+)", body)))
    _agree(name, "parameters", sorted(parameter.name for parameter in parameters), used)
    _agree(name, "columns", [column.name for column in columns], _returned(name, body))
    return Query(name, summary, details, parameters, columns, frozenset(needs), text)


def _sections(name: str, header: Sequence[str]) -> tuple[str, dict[str, list[str]]]:
    """The text before the sections, and the entries of each, one a line."""
    details: list[str] = []
    sections: dict[str, list[str]] = {section: [] for section in _SECTIONS}
    at = None
    for line in header:
        if line in _SECTIONS:
            if at is not None and _SECTIONS.index(line) <= _SECTIONS.index(at):
                raise ValueError(f"{name}: {line!r} stands behind {at!r}")
            at = line
        elif at is None:
            details.append(line)
        elif line.startswith("    ") and sections[at]:
            sections[at][-1] += f" {line.strip()}"
        elif line.startswith("  "):
            sections[at].append(line)
        else:
            raise ValueError(f"{name}: {line!r} is no line of {at!r}")
    return "\n".join(details).strip(), sections


def _entry(name: str, line: str) -> tuple[str, str, str | None, str]:
    found = _ENTRY.fullmatch(line)
    if found is None:
        raise ValueError(f"{name}: {line!r} is not like '  name (type, default): meaning'")
    return found[1], found[2], found[3], found[4]


def _type(name: str, text: str) -> Type:
    found = _TYPE.fullmatch(text)
    if found is None or found[2] not in _CLASSES:
        raise ValueError(f"{name}: {text!r} is no type; there are {', '.join(_CLASSES)}")
    return Type(found[2], many=found[1] is not None, optional=found[3] is not None)


def _parameter(name: str, line: str) -> Parameter:
    parameter, kind, default, meaning = _entry(name, line)
    type_ = _type(name, kind)
    if type_.item not in ("text", "count", "share"):
        raise ValueError(f"{name}: {parameter} is a {type_}; a parameter cannot be")
    if parameter in KEYS and type_.item != "text":
        raise ValueError(f"{name}: {parameter} holds keys, which are text")
    value = None if default is None else _json(name, default)
    if default is not None and not type_.takes(value):
        raise ValueError(f"{name}: the default of {parameter} is {default}, which is no {type_}")
    if type_.optional and (default is None or value is not None):
        raise ValueError(f"{name}: {parameter} may be null, so that has to be its default")
    return Parameter(parameter, type_, default is None, value, meaning)


def _column(name: str, line: str) -> Column:
    column, kind, default, meaning = _entry(name, line)
    if default is not None:
        raise ValueError(f"{name}: the column {column} has a default")
    return Column(column, _type(name, kind), meaning)


def _examples(name: str, parameters: Sequence[Parameter], lines: Sequence[str]) -> None:
    """The lines for Neo4j Browser set each parameter, in order, to a value that it takes."""
    found = [_BROWSER.fullmatch(line) for line in lines]
    _agree(
        name,
        "lines for Neo4j Browser",
        [parameter.name for parameter in parameters],
        [line[1] for line in found if line is not None],
    )
    for parameter, line in zip(parameters, found, strict=True):
        if line is not None and not parameter.type.takes(_json(name, line[2])):
            raise ValueError(f"{name}: {line[2]} is no {parameter.type}: {parameter.name}")


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{name}: {text!r} is not JSON") from error


def _agree(name: str, what: str, declared: Sequence[str], used: Sequence[str]) -> None:
    if list(declared) != list(used):
        raise ValueError(f"{name}: its {what} are {list(used)}, the header says {list(declared)}")


def _returned(name: str, body: str) -> list[str]:
    """The columns of the last RETURN that stands in no brackets."""
    depth, outside = 0, []
    for character in body:
        depth -= character in ")]}"
        outside.append(character if depth == 0 or character == "\n" else " ")
        depth += character in "([{"
    returned = re.split(r"\bRETURN\b", "".join(outside))
    if len(returned) < 2:
        raise ValueError(f"{name}: nothing is returned")
    items = re.split(r"\bORDER BY\b|\bSKIP\b|\bLIMIT\b", returned[-1])[0].split(",")
    columns = [re.search(r"(?:\bAS\s+|^\s*)(\w+)\s*$", item) for item in items]
    if not all(columns):
        raise ValueError(f"{name}: a column has no name: {items}")
    return [column[1] for column in columns if column is not None]
