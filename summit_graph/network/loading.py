"""A model by name: its module, weights, category names and preprocessing.

1. `torchvision:NAME`, `timm:NAME`, `module:callable` or `file.py:callable` gives the module.
   Weights that nobody names are random, from a fixed seed, so that two runs are equal.
2. `weights` is a state dict on disk, read without running code from it, or a name that the
   library knows (`DEFAULT`, `IMAGENET1K_V2`, a tag of timm's).
3. The module is set to evaluation, float32, without gradients; its weights are hashed.
4. Preprocessing and category names are those of the weights, or of the module's attributes
   `transform`, `categories` and `input_shape`.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import pickle
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from summit_graph.errors import ModelError, UsageError
from summit_graph.images.sources import attribute, siblings_importable
from summit_graph.network.preprocessing import (
    Evaluation,
    Preprocessing,
    evaluation,
    of_preset,
    of_timm,
    own_transform,
)

SEED = 0
"""Of weights that are not loaded."""

WEIGHT_SUFFIXES = (".pt", ".pth", ".safetensors")

_WRAPPED = ("state_dict", "model", "model_state_dict")
_PREFIXES = ("module.", "_orig_mod.")
_SHOWN = 3

_Made = TypeVar("_Made")


@dataclass(frozen=True)
class LoadedModel:
    """A classifier that is ready to be traced and run."""

    module: nn.Module
    """In evaluation mode, float32, on the CPU, its parameters without gradients."""
    name: str
    """Short: `resnet50`, or the callable's name."""
    spec: str
    """As it was asked for."""
    weights: str
    """A file's name, the library's name for them, `random`, or `as built` by the callable."""
    weights_hash: str
    """SHA-256, hexadecimal, over the state dict: sorted names, types, shapes and bytes."""
    categories: tuple[str, ...] | None
    """The outputs' names, if the weights or the module bring them."""
    preprocessing: Preprocessing


@dataclass(frozen=True)
class _Built:
    """A module as its library or callable makes it."""

    module: nn.Module
    name: str
    weights: str
    categories: tuple[str, ...] | None
    channels: int
    source: str
    """Where its preprocessing comes from."""
    known: Evaluation | None
    crop: tuple[int, int] | None = None
    own: Preprocessing | None = None
    """A preprocessing that cannot be changed by options."""


def load_model(
    spec: str,
    weights: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> LoadedModel:
    """The model that a text names, with its weights and preprocessing.

    `spec`: `torchvision:NAME`, `timm:NAME`, `module:callable`, `file.py:callable`; a callable is a
    module, or a class or function that makes one. `weights`: a `.pt`, `.pth` or `.safetensors`
    file, a name that the library knows, or None. `image_size`: pixels, or (height, width); `mean`
    and `std`: one value, or one a channel, for values from 0 to 1.

    Raises:
        UsageError: nothing of that name is known, or the options do not fit.
        ModelError: the model cannot be made, its weights cannot be had or do not fit, or its own
            transform is of no use.
    """
    library, _, name = spec.partition(":")
    if not name:
        raise UsageError(
            f"'{spec}' names no model. Write torchvision:NAME, timm:NAME, module:callable or "
            "file.py:callable."
        )
    file = _weights_file(weights)
    named = weights if file is None else None
    state = None if file is None else read_state(file)
    if library == "torchvision":
        built = _torchvision(name, named, file)
    elif library == "timm":
        built = _timm(name, named)
    else:
        if named is not None:
            raise UsageError(
                f"'{named}' is no weights file ({', '.join(WEIGHT_SUFFIXES)}), and only "
                "torchvision and timm know weights by name."
            )
        built = _from_callable(spec)
    module = built.module.cpu().float().eval().requires_grad_(False)
    if file is not None and state is not None:
        load_state(module, state, str(file))
    return LoadedModel(
        module=module,
        name=built.name,
        spec=spec,
        weights=built.weights if file is None else file.name,
        weights_hash=weights_hash(module),
        categories=built.categories,
        preprocessing=_preprocessing(built, image_size, mean, std),
    )


def _preprocessing(
    built: _Built,
    image_size: int | tuple[int, int] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Preprocessing:
    given = [option is not None for option in (image_size, mean, std)]
    if built.own is not None and not any(given):
        return built.own
    if built.own is not None and not all(given):
        raise UsageError(
            f"The preprocessing is the transform of {built.source}, which is taken as it is. Give "
            "all of --image-size, --mean and --std in its place, or none."
        )
    return evaluation(built.channels, built.source, image_size, mean, std, built.known, built.crop)


def _weights_file(weights: str | None) -> Path | None:
    """The file that `weights` names, or None where it is a name."""
    if weights is None:
        return None
    path = Path(weights)
    if path.suffix.lower() in WEIGHT_SUFFIXES:
        if not path.is_file():
            raise UsageError(f"There is no weights file '{path}'.")
        return path
    if path.is_file():
        raise UsageError(
            f"The weights file '{path}' ends in none of {', '.join(WEIGHT_SUFFIXES)}. Rename it to "
            "what it is."
        )
    return None


def _seeded(make: Callable[[], _Made]) -> _Made:
    """What `make` makes from the fixed seed; the caller's random numbers stay as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return make()


def _torchvision(name: str, weights: str | None, file: Path | None) -> _Built:
    """A classifier of torchvision; a file of its own weights counts as those weights."""
    from torchvision import models

    names = models.list_models(module=models)
    if name not in names:
        raise UsageError(_unknown("torchvision classifier", name, names))
    known = models.get_model_weights(name)
    entry = None
    if weights is not None:
        member = weights.rpartition(".")[2]
        if member not in known.__members__:
            raise UsageError(
                f"torchvision knows no weights '{weights}' for {name}. It knows: "
                f"{', '.join(known.__members__)}."
            )
        entry = known[member]
    options: dict[str, Any] = {}
    own_file = None if file is None else _own_file(file, known)
    if entry is None and name in ("googlenet", "inception_v3"):
        # Auxiliary heads only matter while a network is trained; torchvision's own weights of
        # these two want their input in another range, which the module then sees to.
        options = {
            "aux_logits": False,
            "init_weights": file is None,
            "transform_input": own_file is not None,
        }
    try:
        module = _seeded(lambda: models.get_model(name, weights=entry, **options))
    except (OSError, RuntimeError) as error:  # no network, or a file that is not what it should be
        if entry is None:
            raise
        raise ModelError(
            f"The weights {entry} of {name} could not be downloaded ({error}). Where there is no "
            f"network, put {entry.url} into {Path(torch.hub.get_dir()) / 'checkpoints'}, or give a "
            "state dict with --weights FILE."
        ) from error
    entry = entry or own_file
    usual = entry or known["DEFAULT"]
    preset = usual.transforms()
    evaluated = of_preset(preset)
    source = f"torchvision {usual}" if entry else f"torchvision {usual}, for other weights"
    channels = _channels(module)
    own = own_transform(preset, channels, source) if evaluated is None else None
    categories = None if entry is None else entry.meta.get("categories")
    return _Built(
        module=module,
        name=name,
        weights="random" if entry is None else str(entry),
        categories=None if categories is None else tuple(categories),
        channels=channels,
        source=source,
        known=evaluated,
        own=own,
    )


def _own_file(file: Path, known: Any) -> Any:
    """The entry of torchvision's weights whose file this is, by the hash in its address."""
    content = hashlib.sha256(file.read_bytes()).hexdigest()
    for entry in known:
        stated = re.search(r"-([0-9a-f]{8,})\.pth$", entry.url)
        if stated and content.startswith(stated[1]):
            return entry
    return None


def _timm(name: str, weights: str | None) -> _Built:
    try:
        timm: Any = importlib.import_module("timm")
    except ImportError as error:
        raise ModelError(
            "timm is not installed. Install it with: pip install 'summit-graph[timm]'"
        ) from error
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise UsageError(_unknown("timm model", architecture, timm.list_models()))
    if weights not in (None, "DEFAULT"):
        if tag and tag != weights:
            raise UsageError(f"'timm:{name}' names the weights {tag}, and --weights {weights}.")
        tag = str(weights)
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise UsageError(
            f"timm knows no weights '{tag}' for {architecture}. It knows: "
            f"{', '.join(tags) or 'none'}."
        )
    whole = f"{architecture}.{tag}" if tag else architecture
    pretrained = weights is not None
    try:
        module = _seeded(lambda: timm.create_model(whole, pretrained=pretrained))
    except Exception as error:  # whatever the download raises, which is no part of timm's interface
        if not pretrained:
            raise
        raise ModelError(
            f"The weights of timm's {whole} could not be loaded ({type(error).__name__}: {error}). "
            "Where there is no network, download them elsewhere into the Hugging Face cache, or "
            "give a state dict with --weights FILE."
        ) from error
    config = timm.data.resolve_data_config({}, model=module)
    channels = int(config["input_size"][0])
    tag = tag or str(module.pretrained_cfg.get("tag") or "DEFAULT")
    source = f"timm {architecture}.{tag}" + ("" if pretrained else ", for other weights")
    known = of_timm(config)
    own = None
    if known is None:
        settings = {key: _json(value) for key, value in sorted(config.items())}
        transform = timm.data.create_transform(**config, is_training=False)
        own = own_transform(transform, channels, source, settings)
    return _Built(
        module=module,
        name=architecture,
        weights=tag if pretrained else "random",
        categories=_timm_categories(timm, module) if pretrained else None,
        channels=channels,
        source=source,
        known=known,
        own=own,
    )


def _timm_categories(timm: Any, module: nn.Module) -> tuple[str, ...] | None:
    """The first of each output's names, where timm knows which set its weights were trained on."""
    subset = timm.data.infer_imagenet_subset(module)
    if subset is None:
        return None
    names = timm.data.ImageNetInfo(subset).label_descriptions()
    return tuple(name.partition(",")[0] for name in names)


def _json(value: Any) -> object:
    return list(value) if isinstance(value, tuple) else value


def _from_callable(spec: str) -> _Built:
    found = _seeded(lambda: attribute(spec))
    name = spec.rpartition(":")[2].rpartition(".")[2]
    module = found
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise UsageError(
                f"'{spec}' is a {type(found).__name__}, and has to be a module, or a class or "
                "function that makes one."
            )
        try:
            with siblings_importable(spec):
                module = _seeded(found)
        except Exception as error:  # the user's own code may raise anything
            raise ModelError(
                f"'{spec}', called without arguments, fails: {type(error).__name__}: {error}."
            ) from error
    if not isinstance(module, nn.Module):
        raise ModelError(f"'{spec}' makes a {type(module).__name__}, and has to make a module.")
    place, _, names = spec.rpartition(":")
    source = f"{Path(place).name}:{names}"  # a file may move
    shape = _input_shape(module, spec)
    channels = _channels(module) if shape is None else shape[0]
    transform = getattr(module, "transform", None)
    known = transform if isinstance(transform, Evaluation) else None
    own = None
    if transform is not None and known is None:
        own = own_transform(transform, channels, source)
    if own is not None and shape is not None and own.shape != shape:
        raise ModelError(
            f"The transform of '{spec}' gives the shape {own.shape}, and its input_shape is "
            f"{shape}. Correct one of them."
        )
    return _Built(
        module=module,
        name=name,
        weights="as built",
        categories=_categories(module, spec),
        channels=channels,
        source=source,
        known=known,
        crop=None if shape is None else shape[1:],
        own=own,
    )


def _input_shape(module: nn.Module, spec: str) -> tuple[int, int, int] | None:
    shape = getattr(module, "input_shape", None)
    if shape is None:
        return None
    sides = tuple(shape) if isinstance(shape, Sequence) else (shape,)
    if len(sides) != 3 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ModelError(
            f"The input_shape of '{spec}' is {shape!r}, and has to be (channels, height, width)."
        )
    return sides[0], sides[1], sides[2]


def _categories(module: nn.Module, spec: str) -> tuple[str, ...] | None:
    categories = getattr(module, "categories", None)
    if categories is None:
        return None
    if isinstance(categories, str) or not all(isinstance(name, str) for name in categories):
        raise ModelError(f"The categories of '{spec}' have to be a list of names, one an output.")
    return tuple(categories)


def _channels(module: nn.Module) -> int:
    """The channels of the images a module takes: those of its first convolution, or 3."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            return part.in_channels
    return 3


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def _unknown(kind: str, name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=5, cutoff=0.5)
    return f"There is no {kind} '{name}'." + (f" Near: {', '.join(near)}." if near else "")


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, freed of what checkpoints and wrappers put around it.

    Checkpoints that hold it under `state_dict`, `model` or `model_state_dict`, and names that all
    begin with `module.` or `_orig_mod.`, are understood. No code in the file is run.

    Raises:
        ModelError: the file is damaged, holds more than tensors, or is no state dict.
    """
    if path.suffix.lower() == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            content: Any = load_file(path)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"The weights file '{path}' cannot be read: {error}.") from error
    else:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ModelError(
                f"The weights file '{path}' holds more than tensors, or is damaged. Loading it "
                "would run code from the file, so it is refused. If you trust where it comes "
                "from, load it yourself and save its state dict: "
                "torch.save(model.state_dict(), 'weights.pt')."
            ) from error
        except (RuntimeError, EOFError, OSError, ValueError, KeyError, struct.error) as error:
            raise ModelError(
                f"The weights file '{path}' cannot be read: {_first_line(error)}. Save a "
                "state dict: torch.save(model.state_dict(), 'weights.pt')."
            ) from error
    for key in _WRAPPED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise ModelError(
            f"The weights file '{path}' holds a {type(content).__name__}, and no state dict. Save "
            "one: torch.save(model.state_dict(), 'weights.pt')."
        )
    strange = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if strange:
        raise ModelError(
            f"The weights file '{path}' holds '{strange[0]}', a "
            f"{type(content[strange[0]]).__name__} and no tensor. Save only the state dict: "
            "torch.save(model.state_dict(), 'weights.pt')."
        )
    state = dict(content)
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def load_state(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Put a state dict into a module; every name and shape has to fit.

    `num_batches_tracked`, which evaluation does not use, may be missing, as may buffers do that
    the file's auxiliary heads (`aux1`, `aux2`, `AuxLogits`) have and the module has not.

    Raises:
        ModelError: what is missing, left over or of another shape: the first few of each.
    """
    wanted = module.state_dict()
    heads = ("aux1.", "aux2.", "AuxLogits.")
    unused = {
        name
        for name in state
        if name.startswith(heads) and not any(known.startswith(heads) for known in wanted)
    }
    missing = [
        name for name in wanted if name not in state and not name.endswith("num_batches_tracked")
    ]
    unexpected = [name for name in state if name not in wanted and name not in unused]
    unlike = [
        f"{name} {tuple(state[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    faults = [
        f"{what}: {', '.join(names[:_SHOWN])}"
        + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        for what, names in (
            ("missing", missing),
            ("left over", unexpected),
            ("of another shape", unlike),
        )
        if names
    ]
    if faults:
        raise ModelError(
            f"The weights in '{source}' are not for this model; {'; '.join(faults)}. Give the "
            "model that they were trained with: a function in a file of yours that builds it, as "
            "--model file.py:function."
        )
    module.load_state_dict({name: state[name] for name in wanted if name in state}, strict=False)


def weights_hash(module: nn.Module) -> str:
    """SHA-256, hexadecimal, over a module's state dict: sorted names, types, shapes and bytes."""
    total = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()
