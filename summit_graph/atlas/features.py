"""Feature visualisations on disk: the folder `features` of an atlas.

1. A picture is a file, `<layer number>-<channel>-<variant>.webp` (or `.png`): variant 0 is the
   neuron's one image, 1 and up are its diverse ones.
2. The table `features.parquet` beside them says what each shows and how it was made. What it does
   not name does not count: a picture is there once its file and the table are on the disk.
3. They follow from the model's weights and the neuron alone. So they stay when images are added or
   classes ranked again.

Source of the pictures: docs/pictures.md.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from summit_graph.atlas.files import (
    FolderLock,
    is_temporary,
    replace_file,
    sync,
    temporary,
    write_table,
    writing,
)
from summit_graph.errors import AtlasError

FOLDER = "features"
TABLE = "features.parquet"

SCHEMA = pa.schema(
    [
        ("layer", pa.int16()),
        ("channel", pa.int32()),
        ("variant", pa.int8()),
        ("file", pa.string()),
        ("activation", pa.float32()),
        ("best_example", pa.float32()),
        ("steps", pa.int32()),
        ("size", pa.int32()),
        ("seed", pa.int64()),
    ]
)

_PICTURE = re.compile(r"\d+-\d+-\d+\.(webp|png)")


@dataclass(frozen=True)
class Feature:
    """A picture of what excites a neuron.

    layer (number), channel, variant: which. file: its name in the folder. activation: what the
    picture as it is in the file gives the neuron; of a model with other than 1 or 3 channels, which
    no picture file holds, what the optimised image gives it. best_example: the largest activation
    among the atlas's dataset examples when the picture was made, None without any. steps: of the
    optimisation. size: pixels of the longer side. seed: of its random numbers.
    """

    layer: int
    channel: int
    variant: int
    file: str
    activation: float
    best_example: float | None
    steps: int
    size: int
    seed: int


def read_features(atlas: str | Path) -> dict[tuple[int, int], tuple[Feature, ...]]:
    """All pictures of an atlas: (layer number, channel) -> its pictures, by variant.

    Raises: AtlasError if their table cannot be read, or names a file elsewhere.
    """
    path = Path(atlas) / FOLDER / TABLE
    if not path.is_file():
        return {}
    try:
        table = pq.read_table(path, schema=SCHEMA, partitioning=None)
    except (OSError, pa.ArrowInvalid) as error:
        raise AtlasError(
            f"{path} cannot be read: {error}. Remove the folder {path.parent} and make the "
            "pictures again with `summit-graph features`."
        ) from error
    found: dict[tuple[int, int], list[Feature]] = {}
    for row in table.to_pylist():
        feature = Feature(**row)
        if not _PICTURE.fullmatch(feature.file or ""):
            raise AtlasError(f"{path} names a file that is no picture of it: {feature.file!r}.")
        found.setdefault((feature.layer, feature.channel), []).append(feature)
    return {
        neuron: tuple(sorted(features, key=lambda feature: feature.variant))
        for neuron, features in found.items()
    }


class FeatureStore:
    """The right to add pictures to an atlas, from `FeatureStore(atlas)` until `close`.

    A context manager. Several processes may read the pictures meanwhile; one writes them.

    Raises: AtlasError if another run makes pictures for the atlas, or if it cannot be written.
    """

    def __init__(self, atlas: str | Path) -> None:
        self.folder = Path(atlas) / FOLDER
        with writing(self.folder):
            self.folder.mkdir(exist_ok=True)
            self._lock = FolderLock(self.folder)
            try:
                self._features = read_features(atlas)
                self._clean()
            except BaseException:
                self._lock.release()
                raise

    def close(self) -> None:
        """Lets another run make pictures."""
        self._lock.release()

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def features(self) -> Mapping[tuple[int, int], tuple[Feature, ...]]:
        """The pictures that are there, as `read_features` gives them."""
        return self._features

    def put(self, pictures: Iterable[tuple[Feature, bytes]]) -> None:
        """Adds all pictures of some neurons, in place of those that these neurons have.

        pictures: each with the bytes of its file. Cut off at any moment, a neuron has its old
        pictures, its new ones, or none; the others keep theirs.

        Raises: AtlasError if they cannot be written.
        """
        new: dict[tuple[int, int], list[Feature]] = {}
        content: dict[str, bytes] = {}
        for feature, data in pictures:
            new.setdefault((feature.layer, feature.channel), []).append(feature)
            content[feature.file] = data
        with writing(self.folder):
            others = {key: own for key, own in self._features.items() if key not in new}
            old = {feature.file for key in new for feature in self._features.get(key, ())}
            if len(others) < len(self._features):
                self._write(others)
            for name, data in content.items():
                made = temporary(self.folder)
                with made.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(made, self.folder / name)
            sync(self.folder)
            self._write({**others, **{key: tuple(own) for key, own in new.items()}})
            for name in old - content.keys():
                (self.folder / name).unlink(missing_ok=True)

    def _write(self, features: dict[tuple[int, int], tuple[Feature, ...]]) -> None:
        rows: list[dict[str, Any]] = [
            asdict(feature) for key in sorted(features) for feature in features[key]
        ]
        made = temporary(self.folder)
        write_table(made, SCHEMA, [pa.Table.from_pylist(rows, SCHEMA)])
        replace_file(made, self.folder / TABLE)
        self._features = features

    def _clean(self) -> None:
        """Removes what a killed run left, and pictures that the table does not name."""
        named = {feature.file for own in self._features.values() for feature in own}
        for entry in self.folder.iterdir():
            if is_temporary(entry) or (_PICTURE.fullmatch(entry.name) and entry.name not in named):
                entry.unlink()
