"""From an atlas to pictures of what excites its neurons.

1. Take the model that the atlas was counted with, and trace it to its layers (`network/`).
2. Choose neurons: those of the attribution graphs, unless others are asked for.
3. Optimise the pictures, layer by layer and batch by batch (`explain/features.py`), write each
   batch as it is finished (`atlas/features.py`), and note what the pictures as written excite.

A picture that is there already, made with the same steps, size and seed, is kept. So a run that is
cut off goes on from there, and nothing is lost when images are added to the atlas.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from PIL import Image
from torch import Tensor

from summit_graph.atlas.atlas import Atlas
from summit_graph.atlas.features import Feature, FeatureStore
from summit_graph.atlas.generation import Generation
from summit_graph.atlas.interface import find_neuron
from summit_graph.atlas.schema import LayerEntry
from summit_graph.errors import AtlasError, ModelError, UnknownNeuron, UsageError
from summit_graph.explain.features import Excitation, activations, optimise
from summit_graph.network.devices import device_named, exact
from summit_graph.network.loading import LoadedModel, load_model
from summit_graph.network.preprocessing import Preprocessing, normalisation
from summit_graph.network.trace import Network, trace
from summit_graph.reporting import Progress, Reports

LARGEST = 128
"""Pixels of the longer side of a picture of a model with a larger input, if no size is given."""

_QUALITY = 92
"""Of a WebP picture; small ones are written without loss."""

_SMALL = 64
"""Pixels of the longer side below which pictures are small: WebP is written without loss, the CPU
works with one thread, and a neuron's one picture is the best of `_STARTS`, since small ones cost
little and are more often caught where they are not strong."""

_STARTS = 4

_PIXELS = {"cpu": 24 * 128 * 128, "cuda": 256 * 128 * 128, "mps": 64 * 128 * 128}
"""Pixels of the images that are optimised at once, on each kind of device."""

_MOST = 512
"""Images that are optimised at once, however small."""

Neuron = tuple[int, int]
"""Layer number and channel."""


@dataclass(frozen=True)
class FeatureReport:
    """What making pictures did.

    Attributes:
        atlas, folder: whose pictures, and where they lie.
        neurons: how many were asked for; `made` of them in this run, `kept` were there.
        pictures: how many pictures these neurons have.
        steps, size, seed: of the optimisation; pixels of the longer side; of the random numbers.
        compared: neurons with a picture and with a dataset example in the atlas.
        stronger: how many of those their picture excites more than their best example does.
        weaker: the names of the others.
        dead: neurons that no picture excites at all.
        seconds: of the making.
        warnings: what the user was told on the way.
    """

    atlas: Path
    folder: Path
    neurons: int
    made: int
    kept: int
    pictures: int
    steps: int
    size: int
    seed: int
    compared: int
    stronger: int
    weaker: tuple[str, ...]
    dead: tuple[str, ...]
    seconds: float
    warnings: tuple[str, ...]


def visualise(
    atlas: str | Path,
    *,
    model: str | LoadedModel | None = None,
    weights: str | None = None,
    neurons: Sequence[str] | None = None,
    every: bool = False,
    steps: int = 128,
    size: int | None = None,
    diverse: int = 4,
    format: str = "webp",  # noqa: A002
    batch_size: int | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> FeatureReport:
    """Make pictures of what excites neurons, into the atlas's folder `features`.

    Neurons whose pictures were made with these steps, size, seed and format are left as they are;
    pictures made otherwise are replaced. A run that is cut off goes on where it stopped.

    Args:
        atlas: the atlas's folder.
        model: as for `network.loading.load_model`, or a model loaded before; None for the one
            that the atlas names.
        weights: as for `load_model`; None for those that the atlas names.
        neurons: names (`inception4c/57`) or globs (`inception4c/*`) of neurons of chosen layers;
            None for all neurons of attribution graphs.
        every: all neurons of the chosen layers; not together with `neurons`.
        steps: of the optimisation, at least 1; more make clearer pictures.
        size: pixels of the longer side, at least 4; None for the model's input, at most 128.
        diverse: how many diverse pictures each neuron gets beside its one, 0 to 100.
        format: of the files, `webp` or `png`.
        batch_size: neurons that are optimised at once; None for what suits device and size.
        device: `auto`, `cpu`, `cuda` (or `cuda:1`), `mps`.
        seed: of the random numbers. On one device and machine the same seed makes the same
            pictures.
        progress: where to report; None is silent.

    Raises:
        UsageError: an option is out of range, there is no such device, the model does not run on
            images of this size, or a batch does not fit into the memory.
        UnknownNeuron: a name or glob means no neuron of the chosen layers.
        ModelError: the model cannot be loaded, or has other weights than the atlas's.
        AtlasError: there is no such atlas, it is partial or not ranked, or another run makes
            pictures for it; it cannot be written.
    """
    for option, value, least in (
        ("steps", steps, 1),
        ("size", size if size is not None else 4, 4),
        ("diverse", diverse, 0),
        ("batch_size", batch_size if batch_size is not None else 1, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise UsageError(f"{option} is {value}; it must be at least {least}")
    if seed >= 1 << 63:
        raise UsageError(f"seed is {seed}; it must be below 2 to the 63rd")
    if diverse > 100:
        raise UsageError(f"diverse is {diverse}; it must be at most 100")
    if format not in ("webp", "png"):
        raise UsageError(f"format is '{format}'; it must be webp or png")
    if every and neurons is not None:
        raise UsageError("all neurons are asked for, and some by name: leave one out.")
    reports = Reports(progress)
    where = device_named(device)
    with Atlas.open(atlas) as opened:
        if opened.partial:
            raise AtlasError(
                f"{atlas} has no model to make pictures with: {opened.generation.partial}."
            )
        wanted = _wanted(opened, neurons, every)
        best = _best_examples(opened.generation)
        generation = opened.generation
        subject = _subject(generation, model, weights, where, reports)
    started = time.perf_counter()
    names = {layer.number: layer.name for layer in generation.layers}
    asked = _Asked(steps, _sides(subject, size, wanted), seed, diverse, format)
    threads = 1 if where.type == "cpu" and asked.size < _SMALL else torch.get_num_threads()
    with FeatureStore(atlas) as store, exact(), _threads(threads):
        missing = [n for n in wanted if not asked.has(store.features.get(n, ()))]
        at_once = batch_size or _at_once(asked, where)
        with reports.stage("optimising pictures", len(missing), "neuron") as stage:
            for layer, channels in _batches(missing, at_once):
                store.put(_pictures(subject, layer, channels, asked, best))
                stage.advance(len(channels))
        return _report(
            Path(atlas), store, wanted, missing, names, asked,
            time.perf_counter() - started, reports,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Subject:
    """The network whose neurons are pictured, and what it takes.

    shape: (C, H, W) of its input. mean, std: (C,) of the normalisation of values from 0 to 1.
    """

    network: Network
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many threads for PyTorch: over tiny images, several would mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class _Asked:
    """The pictures that are asked for."""

    steps: int
    sides: tuple[int, int]
    seed: int
    diverse: int
    format: str

    @property
    def size(self) -> int:
        return max(self.sides)

    @property
    def starts(self) -> int:
        """How many random starts a neuron's one picture has."""
        return _STARTS if self.size < _SMALL else 1

    def has(self, features: Sequence[Feature]) -> bool:
        """Whether a neuron's pictures are what is asked for."""
        return len(features) > self.diverse and all(
            (feature.steps, feature.size, feature.seed) == (self.steps, self.size, self.seed)
            and feature.file.endswith(f".{self.format}")
            for feature in features
        )


def _wanted(atlas: Atlas, names: Sequence[str] | None, every: bool) -> list[Neuron]:
    """The neurons to be pictured, by layer and channel."""
    if names is None and not every:
        if not atlas.generation.has("ranks"):
            raise AtlasError(
                f"{atlas.path} is not ranked, so it has no attribution graphs: run "
                "`summit-graph rank` on it, or name neurons."
            )
        ranks = atlas.generation.table(
            "ranks", pc.field("selected"), ["layer", "channel"]
        ).to_pydict()
        return sorted(set(zip(ranks["layer"], ranks["channel"], strict=True)))
    if names is None:
        return [(n.number, channel) for n in atlas.layers for channel in range(n.channels)]
    found: set[Neuron] = set()
    for name in names:
        found |= _named(atlas.layers, name)
    return sorted(found)


def _named(layers: Sequence[LayerEntry], name: str) -> set[Neuron]:
    """The neurons that a name or a glob means."""
    if any(sign in name for sign in "*?["):
        by_glob = {
            (layer.number, channel)
            for layer in layers
            for channel in range(layer.channels)
            if fnmatchcase(f"{layer.name}/{channel}", name)
        }
        if by_glob:
            return by_glob
        if not any(layer.name == name.rpartition("/")[0] for layer in layers):
            raise UnknownNeuron(
                f"no neuron matches '{name}'. This atlas has the layers: "
                f"{', '.join(layer.name for layer in layers)}."
            )
    layer, channel = find_neuron(layers, name)
    return {(layer.number, channel)}


def _best_examples(generation: Generation) -> dict[Neuron, float]:
    """The largest activation of each neuron among the dataset examples."""
    if not generation.has("examples"):
        return {}
    table = generation.table(
        "examples", pc.field("class").is_null(), ["layer", "channel", "activation"]
    )
    best = table.group_by(["layer", "channel"]).aggregate([("activation", "max")]).to_pylist()
    return {(row["layer"], row["channel"]): row["activation_max"] for row in best}


def _subject(
    generation: Generation,
    model: str | LoadedModel | None,
    weights: str | None,
    device: torch.device,
    reports: Progress,
) -> _Subject:
    """The atlas's model, traced to its layers."""
    with reports.stage("tracing the model", None, "layer") as stage:
        loaded = _loaded(generation, model, weights)
        if loaded.weights_hash != generation.identity["weights_hash"]:
            raise ModelError(
                f"The weights of {loaded.name} are not those that the atlas was counted with "
                f"(their hashes begin with {loaded.weights_hash[:8]} and "
                f"{generation.identity['weights_hash'][:8]}). Give the atlas's model with --model "
                f"and --weights: it was {_recorded(generation)}."
            )
        channels, height, width = generation.identity["parameters"]["shape"]
        shape = (channels, height, width)
        chosen = [layer for layer in generation.layers if layer.chosen]
        network = trace(loaded.module.to(device), shape, [layer.name for layer in chosen])
        found = {(n.number, n.name, n.channels) for n in network.chosen}
        if found != {(n.number, n.name, n.channels) for n in chosen}:
            raise ModelError(
                f"The layers of {loaded.name} are not those of the atlas, though its weights are. "
                "Give the code of the model that the atlas was counted with, as --model."
            )
        mean, std = input_scale(generation.identity["preprocessing"], loaded.preprocessing)
        stage.note(f"{loaded.name}: {len(chosen)} layers")
    return _Subject(network, shape, mean, std, device)


def _loaded(
    generation: Generation, model: str | LoadedModel | None, weights: str | None
) -> LoadedModel:
    if isinstance(model, LoadedModel):
        return model
    recorded = generation.header["model"]
    spec = model or recorded["spec"]
    if weights is None and model is None and recorded["weights"] not in ("as built", "random"):
        weights = recorded["weights"]
    try:
        return load_model(spec, weights)
    except (UsageError, ModelError) as error:
        if model is not None:
            raise
        raise ModelError(
            f"The model that the atlas was counted with, {_recorded(generation)}, cannot be loaded "
            f"from here: {error} Name it with --model, and its weights with --weights."
        ) from error


def _recorded(generation: Generation) -> str:
    model = generation.header["model"]
    return f"{model['spec']} with the weights {model['weights']}"


def input_scale(
    recorded: Mapping[str, object], preprocessing: Preprocessing
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation, one a channel, by which values from 0 to 1 become what a network takes.

    They are those of the atlas's preprocessing, `recorded`. Where that is a transform of the
    model's own which does not say, they are seen from what it makes of black and of white; and
    where there is no telling, the network is to get values from -2 to 2.
    """
    mean, std = recorded.get("mean"), recorded.get("std")
    if isinstance(mean, list) and isinstance(std, list):
        return tuple(mean), tuple(std)
    said = normalisation(preprocessing)
    if said is not None:
        return said
    channels = preprocessing.shape[0]
    if channels in (1, 3):
        black, white = (
            preprocessing(Image.new("L" if channels == 1 else "RGB", (320, 240), colour))
            .double()
            .mean((1, 2))
            for colour in ("black", "white")
        )
        if bool(((white - black).abs() > 1e-6).all()):
            span = white - black
            return tuple((-black / span).tolist()), tuple((1 / span).tolist())
    return (0.5,) * channels, (0.25,) * channels


def _sides(subject: _Subject, size: int | None, wanted: Sequence[Neuron]) -> tuple[int, int]:
    """Height and width of a picture: the input's proportions, at a size that the network takes."""
    channels, *own = subject.shape
    longer = min(max(own), LARGEST) if size is None else size
    height, width = (max(1, round(side * longer / max(own))) for side in own)
    if [height, width] == own or not wanted:
        return height, width
    try:
        for layer in sorted({layer for layer, _ in wanted}):
            excitation = Excitation(subject.network, layer)
            with torch.no_grad():
                excitation(torch.zeros(1, channels, height, width, device=subject.device))
    except (RuntimeError, ValueError) as error:
        if size is None:
            return own[0], own[1]
        raise UsageError(
            f"the model does not run on images of {height} x {width}; its own are {own[0]} x "
            f"{own[1]}. Choose another size, or leave it out."
        ) from error
    return height, width


def _at_once(asked: _Asked, device: torch.device) -> int:
    """How many neurons are optimised in one batch, at least 1."""
    images = min(_MOST, _PIXELS[device.type] // (asked.sides[0] * asked.sides[1]))
    return max(1, images // (asked.starts + asked.diverse))


def _batches(neurons: Sequence[Neuron], at_once: int) -> Iterator[tuple[int, list[int]]]:
    """Runs of at most so many neurons of one layer: its number and their channels."""
    by_layer: dict[int, list[int]] = {}
    for layer, channel in neurons:
        by_layer.setdefault(layer, []).append(channel)
    for layer, channels in by_layer.items():
        for first in range(0, len(channels), at_once):
            yield layer, channels[first : first + at_once]


def _pictures(
    subject: _Subject,
    layer: int,
    channels: list[int],
    asked: _Asked,
    best: Mapping[Neuron, float],
) -> list[tuple[Feature, bytes]]:
    """The pictures of some neurons of a layer, as files, and what they excite."""
    excitation = Excitation(subject.network, layer)
    try:
        images = optimise(
            excitation,
            channels,
            shape=(subject.shape[0], *asked.sides),
            mean=subject.mean,
            std=subject.std,
            steps=asked.steps,
            starts=asked.starts,
            diverse=asked.diverse,
            seed=asked.seed,
            device=subject.device,
        ).flatten(0, 1)
    except torch.OutOfMemoryError as error:
        raise UsageError(
            f"{len(channels)} neurons at once do not fit into the memory of {subject.device}: give "
            "a smaller --batch-size or --size."
        ) from error
    files = [encoded(image, asked.format) for image in images]
    if subject.shape[0] in (1, 3):
        images = torch.stack([decoded(data, subject.shape[0]) for data in files])
    each = 1 + asked.diverse
    of = [channel for channel in channels for _ in range(each)]
    excited = activations(
        excitation, of, images, mean=subject.mean, std=subject.std, device=subject.device
    )
    return [
        (
            Feature(
                layer=layer,
                channel=channel,
                variant=place % each,
                file=f"{layer}-{channel}-{place % each}.{asked.format}",
                activation=activation,
                best_example=best.get((layer, channel)),
                steps=asked.steps,
                size=asked.size,
                seed=asked.seed,
            ),
            data,
        )
        for place, (channel, activation, data) in enumerate(zip(of, excited, files, strict=True))
    ]


def encoded(image: Tensor, format: str) -> bytes:  # noqa: A002
    """An image as a file's bytes, `webp` or `png`.

    image: (C, H, W), values from 0 to 1. Three channels are colour and one is grey; of any other
    number the mean is shown, scaled from its own range to black and white.
    """
    if len(image) not in (1, 3):
        mean = image.mean(0, keepdim=True)
        image = (mean - mean.min()) / (mean.max() - mean.min()).clamp(min=1e-12)
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    file = io.BytesIO()
    options: dict[str, Any] = {}
    if format == "webp":
        small = max(picture.size) < _SMALL
        options = {"lossless": True} if small else {"quality": _QUALITY, "method": 6}
    picture.save(file, format, **options)
    return file.getvalue()


def decoded(data: bytes, channels: int) -> Tensor:
    """A picture file's bytes as (C, H, W), values from 0 to 1; `channels` is 1 or 3."""
    with Image.open(io.BytesIO(data)) as picture:
        pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"), np.float32) / 255
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels)).permute(2, 0, 1)


def _report(
    atlas: Path,
    store: FeatureStore,
    wanted: Sequence[Neuron],
    missing: Sequence[Neuron],
    names: Mapping[int, str],
    asked: _Asked,
    seconds: float,
    reports: Reports,
) -> FeatureReport:
    first = {neuron: store.features[neuron][0] for neuron in wanted}
    compared = {n: f for n, f in first.items() if f.best_example is not None}
    weaker = [n for n, f in compared.items() if f.activation <= float(f.best_example or 0)]
    dead = [n for n in wanted if not any(f.activation > 0 for f in store.features[n])]
    return FeatureReport(
        atlas=atlas,
        folder=store.folder,
        neurons=len(wanted),
        made=len(missing),
        kept=len(wanted) - len(missing),
        pictures=sum(len(store.features[neuron]) for neuron in wanted),
        steps=asked.steps,
        size=asked.size,
        seed=asked.seed,
        compared=len(compared),
        stronger=len(compared) - len(weaker),
        weaker=tuple(f"{names[layer]}/{channel}" for layer, channel in weaker),
        dead=tuple(f"{names[layer]}/{channel}" for layer, channel in dead),
        seconds=seconds,
        warnings=tuple(reports.messages),
    )
