"""Made atlases for the tests of loading: names that would do harm as a part of a query."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from atlas import made

from summit_graph.atlas.generation import locate
from summit_graph.atlas.schema import ClassEntry

HOSTILE = (
    "'; MATCH (n) DETACH DELETE n //",
    'a "quoted", {name: $class}; x',
    " back\\slash `tick`\nand a new line\r\n\ttab ",
    "🦊 ünïcode \u202e \x07 \\u0027",
    "}) RETURN 1 AS x UNION CALL db.labels() //",
)


def toy(path: Path, images: int = 40, **changes: Any) -> Path:
    return made.atlas(path, made.images(images), **changes)


def hostile(path: Path, key: str = "'}) \"` //\n") -> Path:
    """An atlas whose every name is one of `HOSTILE`; one synset is empty, one is null."""
    return made.atlas(
        path,
        made.images(40, folders=[name.replace("/", "|") for name in HOSTILE]),
        layers=[layer._replace(name=HOSTILE[layer.number]) for layer in made.LAYERS],
        classes=[
            ClassEntry(entry.index, name, synset, entry.outputs)
            for entry, name, synset in zip(
                made.CLASSES, reversed(HOSTILE), ("", None, " n'1 "), strict=False
            )
        ],
        key=key,
        model={"name": HOSTILE[4], "spec": HOSTILE[0]},
        dataset={"name": HOSTILE[3]},
    )


def rewrite(path: Path, name: str, change: Callable[[pa.Table], pa.Table], **options: Any) -> None:
    """Puts a changed table in the place of one."""
    file = locate(path) / f"{name}.parquet"
    pq.write_table(change(pq.read_table(file, partitioning=None)), file, **options)


def change(path: Path, name: str, column: str, values: Callable[[list[Any]], list[Any]]) -> None:
    """Changes the values of one column of a table."""

    def changed(table: pa.Table) -> pa.Table:
        place, field = table.column_names.index(column), table.schema.field(column)
        found = pa.array(values(table.column(column).to_pylist()), field.type)
        return table.set_column(place, field, found)

    rewrite(path, name, changed)
