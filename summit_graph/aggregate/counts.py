"""Counts over images: what the class graphs are made of (docs/method.md, sections 2, 3 and 6).

1. One forward pass per batch shows every chosen layer's activations and every target's strongest
   sources.
2. When the logits are there, each image's class is known, and what was seen is counted for it:
   active channels (section 2), strongest sources (section 3), the sources of its own logit
   (votes, section 6), and the best examples of every neuron.
3. A count is held as a sorted array of keys, one number for class, target and source together,
   with how often each was met; so memory grows with what was met in these images, not with
   classes x neurons x neurons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from summit_graph.aggregate.activation import DEFAULT_MASS, Peaks, active, peaks
from summit_graph.aggregate.examples import DEFAULT_EXAMPLES, Examples, rows
from summit_graph.aggregate.influence import DEFAULT_SOURCES, Influences
from summit_graph.aggregate.kernels import Kernel, Strongest, plain
from summit_graph.errors import SummitGraphError
from summit_graph.network.channels import Values, lined
from summit_graph.network.forward import Forward, Observation
from summit_graph.network.trace import Layer, Network

# (label's output or None, predicted output) -> class, or -1 for none.
Classify = Callable[[int | None, int], int]

DEFAULT_MEMORY = 1 << 30
# Rows of a table that are made at a time, so that what lies between takes little memory.
_ROWS = 1 << 20


@dataclass(frozen=True)
class Counts:
    """What some images add to an atlas; all tables are additive but `images` and `examples`.

    Attributes:
        images: path, label, class, predicted, probability (of the label's output), label_rank.
        activations: class, layer, channel, count.
        influences: class, hop, source, target, count.
        votes: class, layer, channel, count; layers may be hidden.
        examples: class (null over all), layer, channel, path, activation, row, column.
    """

    images: pa.Table
    activations: pa.Table
    influences: pa.Table
    votes: pa.Table
    examples: pa.Table


@dataclass
class _Tally:
    """How often each key was met."""

    keys: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    waiting: list[npt.NDArray[np.int64]] = field(default_factory=list)
    size: int = 0

    def add(self, keys: npt.NDArray[np.int64]) -> None:
        self.waiting.append(keys)
        self.size += len(keys)
        if self.size > 1 << 22:
            self.settle()

    def settle(self) -> None:
        """Count what waits."""
        if not self.waiting:
            return
        met, counts = np.unique(np.concatenate(self.waiting), return_counts=True)
        self.waiting, self.size = [], 0
        place = np.searchsorted(self.keys, met)
        known = place < len(self.keys)
        known[known] = self.keys[place[known]] == met[known]
        self.counts[place[known]] += counts[known]
        self.keys = np.insert(self.keys, place[~known], met[~known])
        self.counts = np.insert(self.counts, place[~known], counts[~known])


def _finite(logits: Tensor) -> Tensor:
    if not bool(torch.isfinite(logits).all()):
        raise SummitGraphError(
            "the model's outputs are no finite numbers: check its weights and the preprocessing"
        )
    return logits


class Counter:
    """Counts images through a network.

    Args:
        network: the traced model.
        mass: the share of a layer's activation that active channels hold together (section 2).
        k: how many sources of each target are counted per image (section 3).
        examples: how many images are kept for each neuron.
        per_class_examples: keep them for each class too.
        by_prediction: classes are predictions, so an image votes by its predicted output; else by
            its label's, where it has one.
        memory: bytes that a kernel's temporary tensors may take.
        kernel: what finds the strongest sources; the plain one runs anywhere.
    """

    def __init__(
        self,
        network: Network,
        *,
        mass: float = DEFAULT_MASS,
        k: int = DEFAULT_SOURCES,
        examples: int = DEFAULT_EXAMPLES,
        per_class_examples: bool = False,
        by_prediction: bool = False,
        memory: int = DEFAULT_MEMORY,
        kernel: Kernel = plain.strongest,
    ):
        self._network, self._mass, self._limit = network, mass, examples
        self._per_class, self._by_prediction = per_class_examples, by_prediction
        self._peaks: dict[int, Peaks] = {}
        self._strongest: list[tuple[int, Tensor, Tensor]] = []
        self._logit_values: Values = {}
        self._logits = Influences(network, network.logits, kernel, k, memory)
        observations = [self._observe_layer(layer) for layer in network.chosen]
        for target in network.targets:
            if target.terms:
                influences = Influences(network, target, kernel, k, memory)
                observations.append(self._observe_target(influences))
        observations.append(
            Observation(self._logits.needs | {network.graph.output}, self._keep_for_votes)
        )
        self._forward = Forward(network, observations)
        self._logits_only = Forward(network, [])
        self._reset()

    def _reset(self) -> None:
        self._active = _Tally()
        self._influence = _Tally()
        self._votes = _Tally()
        self._examples: dict[tuple[int | None, int], Examples] = {}
        self._images: dict[str, list[object]] = {
            name: []
            for name in ("path", "label", "class", "predicted", "probability", "label_rank")
        }

    def _observe_layer(self, layer: Layer) -> Observation:
        node = self._network.nodes[layer.number]
        axis = self._network.maps[layer.number].axis
        assert axis is not None

        def observe(values: Values) -> None:
            found = peaks(lined(values[node], axis))
            if not bool(torch.isfinite(found.activation).all()):
                raise SummitGraphError(
                    f"layer '{layer.name}' has activations that are no finite numbers: check the "
                    "model's weights and the preprocessing"
                )
            self._peaks[layer.number] = found

        return Observation(frozenset({node}), observe)

    def _observe_target(self, influences: Influences) -> Observation:
        layer = influences.target.layer
        assert layer is not None
        first = self._network.offsets[layer]

        def observe(values: Values) -> None:
            for targets, found in influences.strongest(values):
                self._strongest.append((layer, targets + first, found.neurons.cpu()))

        return Observation(influences.needs, observe)

    def _keep_for_votes(self, values: Values) -> None:
        self._logit_values = {node: values[node] for node in self._logits.needs}

    def add(
        self,
        images: Tensor,
        keys: Sequence[str],
        labels: Sequence[int | None],
        classify: Classify,
    ) -> None:
        """Count a batch.

        Args:
            images: (images, C, H, W), preprocessed, on the model's device.
            keys: the images' paths, rising over all batches between two calls of `counts`.
            labels: the model's output for each image's label, or None.
            classify: tells an image's class from its label's output and the predicted one.

        Raises:
            SummitGraphError: an activation or logit is not finite.
        """
        self._peaks.clear()
        self._strongest.clear()
        logits = _finite(self._forward(images).double().cpu())
        predicted = logits.argmax(1).tolist()
        classes = [classify(label, best) for label, best in zip(labels, predicted, strict=True)]
        self._add_images(logits, keys, labels, predicted, classes)
        counted = [n for n, class_ in enumerate(classes) if class_ >= 0]
        if counted:
            of = torch.tensor([classes[n] for n in counted])
            self._add_examples([keys[n] for n in counted], torch.tensor(counted), of)
            self._add_activations(torch.tensor(counted), of)
            self._add_influences(torch.tensor(counted), of)
            outputs = torch.full((len(keys),), -1, dtype=torch.int64)
            for n in counted:
                label = labels[n]
                outputs[n] = predicted[n] if label is None or self._by_prediction else label
            self._add_votes(outputs, torch.tensor(counted), of)
        self._logit_values = {}

    def add_unclassed(
        self, images: Tensor, keys: Sequence[str], labels: Sequence[int | None]
    ) -> None:
        """Run a batch whose images have no class: predictions are recorded, nothing is counted.

        Arguments and errors are those of `add`; the forward pass is all that it costs.
        """
        logits = _finite(self._logits_only(images).double().cpu())
        self._add_images(logits, keys, labels, logits.argmax(1).tolist(), [-1] * len(keys))

    def _add_images(
        self,
        logits: Tensor,
        keys: Sequence[str],
        labels: Sequence[int | None],
        predicted: Sequence[int],
        classes: Sequence[int],
    ) -> None:
        probability = torch.softmax(logits, 1)
        for n, (key, label) in enumerate(zip(keys, labels, strict=True)):
            rank = None
            if label is not None:
                own = logits[n, label]
                rank = int((logits[n] > own).sum() + (logits[n, :label] == own).sum()) + 1
            row = {
                "path": key,
                "label": label,
                "class": classes[n] if classes[n] >= 0 else None,
                "predicted": predicted[n],
                "probability": None if label is None else float(probability[n, label]),
                "label_rank": rank,
            }
            for name, value in row.items():
                self._images[name].append(value)

    def _add_activations(self, counted: Tensor, classes: Tensor) -> None:
        total = self._network.neurons
        for number, found in self._peaks.items():
            image, channel = torch.nonzero(
                active(found.activation.cpu()[counted], self._mass), as_tuple=True
            )
            neuron = channel + self._network.offsets[number]
            self._active.add((classes[image] * total + neuron).numpy())

    def _add_influences(self, counted: Tensor, classes: Tensor) -> None:
        total = self._network.neurons
        for _, targets, neurons in self._strongest:
            some = neurons[counted]
            base = (classes.reshape(-1, 1, 1) * total + targets.reshape(1, -1, 1)) * total
            self._influence.add((base + some)[some >= 0].numpy())

    def _add_votes(self, outputs: Tensor, counted: Tensor, classes: Tensor) -> None:
        found: Strongest = self._logits.of_logits(self._logit_values, outputs)
        neurons = found.neurons[counted, 0]
        keys = classes.reshape(-1, 1) * self._network.neurons + neurons
        self._votes.add(keys[neurons >= 0].numpy())

    def _add_examples(self, keys: Sequence[str], counted: Tensor, classes: Tensor) -> None:
        for number, found in self._peaks.items():
            channels = found.activation.shape[1]
            some = Peaks(found.activation.cpu()[counted], found.position.cpu()[counted])
            self._best(None, number, channels).add(keys, some)
            for class_ in classes.unique().tolist() if self._per_class else ():
                own = torch.nonzero(classes == class_).squeeze(1)
                self._best(class_, number, channels).add(
                    [keys[n] for n in own.tolist()],
                    Peaks(some.activation[own], some.position[own]),
                )

    def _best(self, class_: int | None, number: int, channels: int) -> Examples:
        key = (class_, number)
        if key not in self._examples:
            self._examples[key] = Examples(channels, self._limit)
        return self._examples[key]

    def counts(self) -> Counts:
        """What was counted since the last call; the counter starts again from nothing."""
        found = Counts(
            images=self._images_table(),
            activations=self._activations_table(self._active),
            influences=self._influences_table(),
            votes=self._activations_table(self._votes),
            examples=self._examples_table(),
        )
        self._reset()
        return found

    def _images_table(self) -> pa.Table:
        types = {
            "path": pa.string(), "label": pa.int32(), "class": pa.int32(),
            "predicted": pa.int32(), "probability": pa.float32(), "label_rank": pa.int32(),
        }  # fmt: skip
        return pa.table(
            {name: pa.array(values, types[name]) for name, values in self._images.items()}
        )

    def _located(
        self, neurons: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Layer and channel of neurons numbered over all layers."""
        offsets = np.array(self._network.offsets)
        layer = np.searchsorted(offsets, neurons, side="right") - 1
        return layer, neurons - offsets[layer]

    def _activations_table(self, tally: _Tally) -> pa.Table:
        tally.settle()
        class_, neuron = np.divmod(tally.keys, self._network.neurons)
        layer, channel = self._located(neuron)
        return pa.table(
            {
                "class": pa.array(class_, pa.int32()),
                "layer": pa.array(layer, pa.int16()),
                "channel": pa.array(channel, pa.int32()),
                "count": pa.array(tally.counts, pa.int32()),
            }
        )

    def _influences_table(self) -> pa.Table:
        self._influence.settle()
        keys, counts = self._influence.keys, self._influence.counts
        starts = range(0, max(len(keys), 1), _ROWS)
        return pa.concat_tables(
            [self._influence_rows(keys[n : n + _ROWS], counts[n : n + _ROWS]) for n in starts]
        )

    def _influence_rows(
        self, keys: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
    ) -> pa.Table:
        total, width = self._network.neurons, len(self._network.layers)
        rest, source_neuron = np.divmod(keys, total)
        class_, target_neuron = np.divmod(rest, total)
        source_layer, source = self._located(source_neuron)
        target_layer, target = self._located(target_neuron)
        number = np.full(width * width, -1, np.int64)
        for hop in self._network.hops:
            number[hop.source * width + hop.target] = hop.number
        return pa.table(
            {
                "class": pa.array(class_, pa.int32()),
                "hop": pa.array(number[source_layer * width + target_layer], pa.int16()),
                "source": pa.array(source, pa.int32()),
                "target": pa.array(target, pa.int32()),
                "count": pa.array(counts, pa.int32()),
            }
        )

    def _examples_table(self) -> pa.Table:
        parts = []
        for (class_, number), examples in self._examples.items():
            found = examples.found()
            row, column = rows(found.position, self._network.layers[number].width)
            count = len(found.channel)
            parts.append(
                pa.table(
                    {
                        "class": pa.array([class_] * count, pa.int32()),
                        "layer": pa.array([number] * count, pa.int16()),
                        "channel": pa.array(found.channel, pa.int32()),
                        "path": pa.array(found.image, pa.string()),
                        "activation": pa.array(found.activation, pa.float32()),
                        "row": pa.array(row.numpy(), pa.int32()),
                        "column": pa.array(column.numpy(), pa.int32()),
                    }
                )
            )
        return pa.concat_tables(parts) if parts else pa.table(
            {
                "class": pa.array([], pa.int32()), "layer": pa.array([], pa.int16()),
                "channel": pa.array([], pa.int32()), "path": pa.array([], pa.string()),
                "activation": pa.array([], pa.float32()), "row": pa.array([], pa.int32()),
                "column": pa.array([], pa.int32()),
            }
        )  # fmt: skip
