"""The tables of an atlas, made from all its shards out of core.

1. Counts (`activations`, `influences`, votes) are sums over the shards by key. They are made for a
   range of classes at a time, so many that its rows fit well into the memory limit, in rising order
   and straight into the file; a class too large for that is summed by DuckDB on disk, in a folder
   inside the atlas.
2. Images are numbered by path (then content). Of the examples of a neuron the highest activations
   stay, equal ones by the image's number; shards are added a few at a time.
3. Classes and confusions are sums over the images (docs/method.md, section 6).

Sums of whole numbers do not depend on order, so the tables depend on the counted images alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from summit_graph.atlas.files import discard, temporary, write_table, writing
from summit_graph.atlas.generation import TABLES, Generation
from summit_graph.atlas.schema import (
    ATLAS_TABLES,
    EXAMPLES,
    KEYS,
    PROBABILITY_BINS,
    ClassEntry,
    ReceptiveField,
)
from summit_graph.atlas.store import SHARDS, Store, disk_schema
from summit_graph.errors import AtlasError

MEMORY = 2 << 30
"""Default memory limit, bytes."""

_ROW_BYTES = 160
"""Memory that a row of counts takes while it is summed and sorted, bytes."""

_NO_CLASS = -1

_SUMMED = {"activations": "activations", "influences": "influences", "votes": "raw_votes"}
"""Shard table -> atlas table."""


def build_tables(
    store: Store,
    memory: int = MEMORY,
    threads: int | None = None,
    fields: Sequence[ReceptiveField] | None = None,
) -> Generation:
    """Makes the tables of `schema.COUNTED` from all shards and puts them in place together.

    The tables of an earlier ranking do not fit them any more and are left out of the new set.

    memory: limit of the database's working memory, bytes; what does not fit goes to a temporary
    folder inside the atlas. threads: of the database (None: one per core). fields: the receptive
    fields of the chosen layers, by number (None: those that the atlas has, if any).
    Raises: AtlasError if a shard is not finished or is damaged (with its number), if the memory
    limit is too low, or if the tables cannot be written; the present tables stay.
    Source: docs/method.md, sections 2, 3, 6 and 7.
    """
    pending = store.pending()
    if pending:
        raise AtlasError(
            f"{len(pending)} shards of {store.path} are not counted yet. "
            "Run the same `summit-graph ingest` again to go on."
        )
    header = store.header
    present = store.generation
    identity = present.identity
    with (
        store.draft(keep=("receptive_fields",)) as draft,
        _database(store, memory, threads) as work,
    ):
        draft.write("layers", _rows("layers", list(present.layers)))
        draft.write("hops", _rows("hops", list(present.hops)))
        if fields is not None:
            draft.write("receptive_fields", field_rows(fields))
        for source, target in _SUMMED.items():
            draft.write(target, work.sums(source))
        work.number_images()
        draft.write("images", work.read(_IMAGES))
        limit = int(identity["parameters"].get("examples", EXAMPLES))
        draft.write("examples", work.examples(limit, _EXAMPLES))
        work.name_outputs(present.classes)
        draft.write("classes", _class_rows(present.classes, work.rows(_CLASSES)))
        draft.write("confusions", work.read(_CONFUSIONS[identity["grouping"]]))
        kept = (
            "format", "summit_graph", "key", "name", "model", "dataset", "identity", "thumbnails",
        )  # fmt: skip
        return draft.publish(
            {
                **{entry: header[entry] for entry in kept if entry in header},
                "complete": True,
                "counted": {"images": store.planned.num_rows, "digest": store.digest},
            },
            fresh=True,
        )


def compact(store: Store, memory: int = MEMORY, threads: int | None = None) -> int | None:
    """Folds all finished shards into one and returns its number (None: there are fewer than two).

    The tables made from it are the same. Images planned for unfinished shards keep theirs.
    Parameters and errors as `build_tables`.
    """
    numbers = store.finished()
    if len(numbers) < 2:
        return None
    limit = int(store.header["identity"]["parameters"].get("examples", EXAMPLES))
    folder = temporary(store.path / SHARDS)
    with writing(store.path):
        folder.mkdir()
        try:
            with _database(store, memory, threads) as work:
                parts: dict[str, Iterator[pa.Table]] = {name: work.sums(name) for name in _SUMMED}
                work.number_images()
                parts["images"] = work.read(_FOLDED_IMAGES)
                parts["examples"] = work.examples(limit, _FOLDED_EXAMPLES)
                for name, tables in parts.items():
                    schema = disk_schema(name)
                    write_table(
                        folder / f"{name}.parquet",
                        schema,
                        (table.select(schema.names).cast(schema) for table in tables),
                    )
            return store.replace_shards(numbers, folder)
        except BaseException:
            discard(folder)
            raise


# Images are numbered over all shards; (shard, part, path) names one of them.
_NUMBERED = """
CREATE TEMP TABLE numbered AS
SELECT
    row_number() OVER (ORDER BY path, hash, shard, part) - 1 AS image,
    dense_rank() OVER (ORDER BY shard, part) - 1 AS new_part,
    *
FROM (SELECT *, {shard} AS shard FROM {images})
"""

_IMAGES = "SELECT * EXCLUDE (shard, part, new_part, filename) FROM numbered ORDER BY image"

_FOLDED_IMAGES = """
SELECT * EXCLUDE (shard, part, image, new_part, filename), new_part AS part
FROM numbered ORDER BY image
"""

_EXAMPLES = """
SELECT class, layer, channel, place AS rank, image, activation, "row", "column"
FROM best ORDER BY class NULLS FIRST, layer, channel, place
"""

_FOLDED_EXAMPLES = """
SELECT class, layer, channel, path, activation, "row", "column", new_part AS part
FROM best JOIN (SELECT image, path, new_part FROM numbered) USING (image)
ORDER BY class NULLS FIRST, layer, channel, place
"""

# Later shards are added to the best so far: `best` never holds more than the limit per neuron.
_BETTER = """
CREATE OR REPLACE TEMP TABLE best AS
SELECT * FROM (
    SELECT
        class, layer, channel, image, activation, "row", "column",
        row_number() OVER (
            PARTITION BY class, layer, channel ORDER BY activation DESC, image
        )::INTEGER AS place
    FROM (
        SELECT class, layer, channel, image, activation, "row", "column" FROM best
        UNION ALL
        SELECT class, layer, channel, image, activation, "row", "column"
        FROM (SELECT *, {shard} AS shard FROM {examples} WHERE {classes})
        JOIN (SELECT shard, part, path, image FROM numbered) USING (shard, part, path)
    )
)
WHERE place <= $limit
"""

_NO_BEST = """
CREATE OR REPLACE TEMP TABLE best (
    class INTEGER, layer SMALLINT, channel INTEGER, image BIGINT, activation FLOAT,
    "row" INTEGER, "column" INTEGER, place INTEGER
)
"""

# Ten times a float32 is exact in float64, so the bins' bounds are. `least` would pass over a null.
_BIN = f"least(floor(probability::DOUBLE * 10), {PROBABILITY_BINS - 1})"
_BINS = ", ".join(
    f"count(*) FILTER (isfinite(probability) AND {_BIN} = {number})"
    for number in range(PROBABILITY_BINS)
)
_CLASSES = f"""
SELECT
    class,
    count(*),
    avg((label_rank = 1)::INTEGER),
    avg((label_rank <= 5)::INTEGER),
    count(probability),
    [{_BINS}]
FROM numbered WHERE status = 'ok' AND class IS NOT NULL
GROUP BY class
"""

_CONFUSION = """
SELECT class, coalesce(owner, -1) AS predicted, count(*)::INTEGER AS count
FROM numbered LEFT JOIN outputs ON {output} = output
WHERE status = 'ok' AND class IS NOT NULL AND {output} IS NOT NULL AND coalesce(owner, -1) <> class
GROUP BY ALL ORDER BY ALL
"""

_CONFUSIONS = {
    "label": _CONFUSION.format(output="predicted"),
    "prediction": _CONFUSION.format(output="label"),
}


class _Database:
    """The shards of an atlas, as an in-memory DuckDB that spills to disk sees them."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, folders: Sequence[Path], rows: int
    ) -> None:
        self.connection = connection
        self.folders = folders
        self.rows_at_once = rows

    def read(self, query: str, values: Mapping[str, Any] | None = None) -> Iterator[pa.Table]:
        relation = self.connection.sql(query, params=dict(values or {}))
        for batch in relation.to_arrow_reader(1 << 18):
            yield pa.Table.from_batches([batch])

    def rows(self, query: str, values: Mapping[str, Any] | None = None) -> list[Any]:
        return self.connection.execute(query, dict(values or {})).fetchall()

    def number_images(self) -> None:
        self.connection.execute(
            _NUMBERED.format(shard=_SHARD, images=_SCAN),
            {"files": self._files("images", self.folders)},
        )

    def name_outputs(self, classes: Sequence[ClassEntry]) -> None:
        """Makes the table `outputs`: which class owns which output of the model."""
        pairs = [(output, entry.index) for entry in classes for output in entry.outputs]
        table = pa.table(
            {
                "output": pa.array([output for output, _ in pairs], pa.int32()),
                "owner": pa.array([owner for _, owner in pairs], pa.int32()),
            }
        )
        self.connection.register("given_outputs", table)
        self.connection.execute("CREATE TEMP TABLE outputs AS SELECT * FROM given_outputs")

    def sums(self, name: str) -> Iterator[pa.Table]:
        """A table of counts, summed over the shards, sorted by its key."""
        keys = ", ".join(KEYS[_SUMMED[name]])
        for low, high, folders in self._ranges(name):
            yield from self.read(
                f"SELECT {keys}, sum(count)::INTEGER AS count FROM {_SCAN} "
                f"WHERE class BETWEEN $low AND $high GROUP BY {keys} ORDER BY {keys}",
                {"files": self._files(name, folders), "low": low, "high": high},
            )

    def examples(self, limit: int, query: str) -> Iterator[pa.Table]:
        """The examples with the highest activations of each neuron, as `query` reads `best`."""
        for low, high, folders in self._ranges("examples"):
            self.connection.execute(_NO_BEST)
            for some in self._some("examples", folders):
                values = {"files": self._files("examples", some), "limit": limit}
                if low is not None:
                    values |= {"low": low, "high": high}
                classes = "class IS NULL" if low is None else "class BETWEEN $low AND $high"
                self.connection.execute(
                    _BETTER.format(shard=_SHARD, examples=_SCAN, classes=classes), values
                )
            yield from self.read(query)

    def _ranges(self, name: str) -> Iterator[tuple[int | None, int | None, list[Path]]]:
        """Ranges of classes whose rows fit into memory: first, last, and the shards that have some.

        None as first and last: the rows of no class, as far as there are any.
        """
        parts = [(folder, *_class_counts(folder / f"{name}.parquet")) for folder in self.folders]
        found = np.unique(np.concatenate([classes for _, classes, _ in parts]))
        rows = np.zeros(len(found), dtype=np.int64)
        for _, classes, counts in parts:
            rows[np.searchsorted(found, classes)] += counts
        start = 0
        while start < len(found):
            inside = np.cumsum(rows[start:]) <= self.rows_at_once
            end = start + (1 if found[start] == _NO_CLASS else max(1, int(inside.sum())))
            low, high = int(found[start]), int(found[end - 1])
            folders = [
                folder
                for folder, classes, _ in parts
                if np.any((low <= classes) & (classes <= high))
            ]
            yield (None, None, folders) if low == _NO_CLASS else (low, high, folders)
            start = end

    def _some(self, name: str, folders: Sequence[Path]) -> Iterator[list[Path]]:
        """`folders` in runs whose tables `name` together fit into memory; at least one a run."""
        some: list[Path] = []
        total = 0
        for folder in folders:
            rows = pq.read_metadata(folder / f"{name}.parquet").num_rows
            if some and total + rows > self.rows_at_once:
                yield some
                some, total = [], 0
            some.append(folder)
            total += rows
        if some:
            yield some

    @staticmethod
    def _files(name: str, folders: Sequence[Path]) -> list[str]:
        return [_literal(folder / f"{name}.parquet") for folder in folders]


_SCAN = "read_parquet($files, filename = true, hive_partitioning = false)"
_SHARD = r"regexp_extract(filename, '([0-9]+)/[a-z]+\.parquet$', 1)::INTEGER"


def _literal(path: Path) -> str:
    """A path as `read_parquet` takes it for one file: `*`, `?` and `[` stand for themselves."""
    return re.sub(r"([*?\[])", r"[\1]", str(path.absolute()))


@contextmanager
def _database(store: Store, memory: int, threads: int | None) -> Iterator[_Database]:
    """A database over the finished shards of `store`; its errors become AtlasErrors."""
    spill = temporary(store.path / TABLES)
    folders = [store.shard_folder(number) for number in store.finished()]
    settings: dict[str, Any] = {
        "memory_limit": f"{memory // 1000}kB",
        "temp_directory": str(spill),
        "autoinstall_known_extensions": "false",
    }
    if threads is not None:
        settings["threads"] = threads
    connection = duckdb.connect(":memory:", config=settings)
    try:
        if not folders:
            raise AtlasError(
                f"no image is counted in {store.path} yet. Run `summit-graph ingest` with images."
            )
        yield _Database(connection, folders, max(1, memory // _ROW_BYTES))
    except duckdb.OutOfMemoryException as error:
        raise AtlasError(
            f"the tables of {store.path} cannot be made in {memory / 2**30:.2g} GiB of memory, or "
            f"there is no space left there for what exceeds it: {error}. Give more memory or free "
            "some space, and run the same command again: the shards are kept."
        ) from error
    except duckdb.Error as error:
        raise AtlasError(
            f"the tables of {store.path} cannot be made: {error}. The shards are kept."
        ) from error
    finally:
        connection.close()
        discard(spill)


def _class_counts(path: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """How many rows of each class a shard's table has: rising classes (n,) and rows (n,).

    `_NO_CLASS` stands for null. Reading them shows as well that the file is there and whole.
    Raises: AtlasError with the shard's number if it is not.
    """
    try:
        column = pq.read_table(path, columns=["class"], partitioning=None).column("class")
    except (OSError, pa.ArrowInvalid) as error:
        raise AtlasError(
            f"shard {path.parent.name} is damaged: {error}. Remove the folder {path.parent} and "
            "run the same `summit-graph ingest` again: it is counted anew."
        ) from error
    classes, rows = np.unique(column.fill_null(_NO_CLASS).to_numpy(), return_counts=True)
    return classes.astype(np.int64), rows.astype(np.int64)


def _rows(name: str, rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    """Rows as an atlas table; its columns are in their order."""
    schema = ATLAS_TABLES[name]
    columns = list(zip(*rows, strict=True)) or [() for _ in schema.names]
    return pa.table(
        [pa.array(list(column), field.type) for column, field in zip(columns, schema, strict=True)],
        schema=schema,
    )


def field_rows(fields: Sequence[ReceptiveField]) -> pa.Table:
    """The table `receptive_fields`."""
    return _rows("receptive_fields", sorted(fields))


def _class_rows(classes: Sequence[ClassEntry], found: Sequence[tuple[Any, ...]]) -> pa.Table:
    """The table `classes`: every class, those without images too."""
    records = {row[0]: row[1:] for row in found}
    rows: list[tuple[Any, ...]] = []
    for entry in classes:
        images, top1, top5, judged, bins = records.get(entry.index, (0, None, None, 0, None))
        rows.append(
            (entry.index, entry.name, entry.synset, images, top1, top5, bins if judged else None)
        )
    return _rows("classes", rows)
