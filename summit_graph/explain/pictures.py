"""The pictures of an atlas's neurons: feature visualisations, and patches of dataset examples.

`visualisation.visualise` makes the first, `pipeline.ingest` the thumbnails of the second; both lie
in the atlas's folder. Neurons are named `<layer>/<channel>`. Source: docs/pictures.md.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from summit_graph.atlas.atlas import Atlas
from summit_graph.atlas.features import FOLDER, Feature, read_features
from summit_graph.atlas.interface import ExampleRecord, find_neuron
from summit_graph.errors import AtlasError
from summit_graph.explain.patches import Patches


class Patch(NamedTuple):
    """A dataset example of a neuron, and the part of the image that the neuron sees, as WebP."""

    example: ExampleRecord
    webp: bytes


class Pictures:
    """The pictures of one atlas, read only.

    atlas: an open one, or a folder, which is opened. Raises: AtlasError.
    """

    def __init__(self, atlas: Atlas | str | Path) -> None:
        self.atlas = atlas if isinstance(atlas, Atlas) else Atlas.open(atlas)
        self._patches = Patches(self.atlas)

    @cached_property
    def _features(self) -> dict[tuple[int, int], tuple[Feature, ...]]:
        return read_features(self.atlas.path)

    def feature(self, neuron: str) -> bytes | None:
        """The feature visualisation as the bytes of a WebP or PNG file; None where there is none.

        Raises: UnknownNeuron; AtlasError if a picture that is listed cannot be read.
        """
        return next((self._read(own) for own in self._of(neuron) if own.variant == 0), None)

    def diverse(self, neuron: str) -> tuple[bytes, ...]:
        """The diverse feature visualisations, as files' bytes; none where there are none.

        Raises: UnknownNeuron; AtlasError if a picture that is listed cannot be read.
        """
        return tuple(self._read(own) for own in self._of(neuron) if own.variant > 0)

    def patches(self, neuron: str, name: str | int | None = None) -> tuple[Patch, ...]:
        """What the neuron sees of its dataset examples, the highest activation first.

        name: among the images of one class, where the atlas was counted so; None: among all.
        Examples without a thumbnail are left out. A partial atlas has none.
        Raises: UnknownNeuron, UnknownClass.
        """
        layer, _ = find_neuron(self.atlas.layers, neuron)
        if self.atlas.partial:
            return ()
        examples = self.atlas.examples(neuron, name)
        found = ((example, self._patches.patch(layer.name, example)) for example in examples)
        return tuple(Patch(example, webp) for example, webp in found if webp is not None)

    def _of(self, neuron: str) -> tuple[Feature, ...]:
        layer, channel = find_neuron(self.atlas.layers, neuron)
        return self._features.get((layer.number, channel), ())

    def _read(self, feature: Feature) -> bytes:
        path = self.atlas.path / FOLDER / feature.file
        try:
            return path.read_bytes()
        except OSError as error:
            raise AtlasError(
                f"{path} cannot be read: {error.strerror}. Remove the folder {path.parent} and "
                "make the pictures again with `summit-graph features`."
            ) from error
