"""From a picture to what the network takes: resize, crop, scale, normalise.

What is done comes from, in this order:

1. `--image-size`, `--mean`, `--std`, each where it is given;
2. the weights' own transforms (torchvision), timm's data configuration, or a `transform` attribute
   of the model;
3. the model's `input_shape` attribute, or the transforms of the architecture's default weights;
4. assumptions: 224 pixels, the mean and standard deviation of ImageNet.

The usual evaluation is: the shorter side is resized to the image size / 0.875 (256 for 224), the
centre is cropped, values become 0 to 1 and are normalised. `Preprocessing.describe` states what is
done, where it comes from, and what was assumed. `picture` goes back: from what the network takes to
a picture that a person sees.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from summit_graph.errors import ModelError, UsageError
from summit_graph.images.decoding import BadImage, as_pixels

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CROP_SHARE = 0.875
"""The image size / the size that the shorter side is resized to, unless the weights say."""

_LARGEST = 1 << 25
"""Pixels of a resized picture, for which 64 times the pixels asked for are not enough: it is a
line of several hundred times its width, and would take gigabytes."""

_BEYOND = 0.25
"""How far values that are no longer normalised may lie outside of 0 to 1 (a sharp resize goes a
little beyond). Further out, they were normalised in another way."""

_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")


@dataclass(frozen=True)
class Preprocessing:
    """A picture (mode `RGB` or `L`) to a float32 tensor of this `shape`, (C, H, W)."""

    shape: tuple[int, int, int]
    transform: Callable[[Image.Image], Tensor] = field(compare=False)
    description: Mapping[str, object]

    def __call__(self, image: Image.Image) -> Tensor:
        """The picture as the network takes it.

        Raises:
            BadImage: it is too long and narrow to be resized.
            ModelError: a transform of the model's own gives another shape or no floats.
        """
        result = self.transform(as_pixels(image, self.shape[0]))
        if not isinstance(result, Tensor) or not result.is_floating_point():
            raise ModelError(
                f"The model's transform gives a {type(result).__name__}"
                f"{f' of {result.dtype}' if isinstance(result, Tensor) else ''}, and has to give a "
                "float tensor (C, H, W). End it with a conversion to float."
            )
        if tuple(result.shape) != self.shape:
            raise ModelError(
                f"The model's transform gives the shape {tuple(result.shape)} for a picture of "
                f"{image.width} x {image.height}, and has to give {self.shape} for all. Let it "
                "crop."
            )
        return result.float()

    def describe(self) -> dict[str, object]:
        """What is done, as JSON values; equal for equal preprocessing."""
        return dict(self.description)


@dataclass(frozen=True)
class Evaluation:
    """Resize, centre crop, scale to 0 to 1, normalise; as torchvision does it, bit for bit.

    The picture is resized, its proportions kept, to the smallest size that covers `resize`; for a
    square that means that its shorter side is resized. `resize` and `crop` are (height, width).
    What a crop lacks is black. `interpolation` is a name of `PIL.Image.Resampling`, lower case.
    `mean` and `std` have a value for each channel.
    """

    resize: tuple[int, int]
    crop: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"

    def __call__(self, image: Image.Image) -> Tensor:
        """A picture of as many channels as `mean` has values, to (C, H, W), float32."""
        size = _covering(image.size, self.resize)
        if math.prod(size) > max(_LARGEST, 64 * math.prod(self.resize)):
            raise BadImage("too long and narrow")
        if size != image.size:
            image = image.resize(size, Image.Resampling[self.interpolation.upper()])
        pixels = np.asarray(_centre(image, self.crop)).reshape(*self.crop, len(self.mean))
        values = pixels.transpose(2, 0, 1).astype(np.float32, order="C")
        values /= np.float32(255)
        values -= np.array(self.mean, np.float32)[:, None, None]
        values /= np.array(self.std, np.float32)[:, None, None]
        return torch.from_numpy(values)

    def describe(self) -> dict[str, object]:
        """The settings as JSON values."""
        return {
            "resize": list(self.resize),
            "crop": list(self.crop),
            "interpolation": self.interpolation,
            "mean": list(self.mean),
            "std": list(self.std),
        }


def _covering(size: tuple[int, int], cover: tuple[int, int]) -> tuple[int, int]:
    """The (width, height) of a picture of this size, resized to just cover (height, width)."""
    width, height = size
    if width * cover[0] <= height * cover[1]:
        return cover[1], int(cover[1] * height / width)
    return int(cover[0] * width / height), cover[0]


def _centre(image: Image.Image, crop: tuple[int, int]) -> Image.Image:
    """The centre of a picture, (height, width); black where it is smaller."""
    height, width = crop
    left = _offset(image.width, width)
    top = _offset(image.height, height)
    return image.crop((left, top, left + width, top + height))


def _offset(have: int, want: int) -> int:
    return round((have - want) / 2) if have >= want else -((want - have) // 2)


def evaluation(
    channels: int,
    source: str,
    image_size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    known: Evaluation | None = None,
    crop: tuple[int, int] | None = None,
) -> Preprocessing:
    """The usual evaluation: options first, then what is `known`, then assumptions.

    `source` says where `known` comes from, or what nothing is known of. `image_size`: pixels, or
    (height, width). `mean` and `std`: one value for all channels, or one for each, of values from
    0 to 1. `crop`: (height, width) that the network takes, where no more is known.

    Raises:
        UsageError: a size below 1, a deviation that is not above 0, or not one value a channel.
    """
    assumed = []
    if known is None:
        if crop is None and image_size is None:
            assumed.append("image size")
        if mean is None:
            assumed.append("mean")
        if std is None:
            assumed.append("std")
        usual_mean, usual_std = _usual(channels)
        at = crop or (224, 224)
        known = Evaluation(_resized(at, CROP_SHARE, CROP_SHARE), at, usual_mean, usual_std)
    result = known
    options = []
    if image_size is not None:
        at = (image_size, image_size) if isinstance(image_size, int) else image_size
        if len(at) != 2 or min(at) < 1:
            raise UsageError(f"The image size {image_size} is no number of pixels above 0.")
        shares = (known.crop[0] / known.resize[0], known.crop[1] / known.resize[1])
        result = replace(result, crop=at, resize=_resized(at, *shares))
        options.append("image size")
    if mean is not None:
        result = replace(result, mean=_per_channel(mean, channels, "mean"))
        options.append("mean")
    if std is not None:
        result = replace(result, std=_per_channel(std, channels, "standard deviation"))
        if min(result.std) <= 0:
            raise UsageError(f"The standard deviation {list(std)} must be above 0.")
        options.append("std")
    if len(result.mean) != channels or len(result.std) != channels:
        raise UsageError(
            f"The network takes {channels} channels, and the preprocessing of {source} is for "
            f"{len(result.mean)}. Give --mean and --std."
        )
    description = {
        "source": "options" if len(options) == 3 else source,
        "channels": channels,
        **result.describe(),
        "options": options,
        "assumed": assumed,
    }
    return Preprocessing((channels, *result.crop), result, description)


def _usual(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """ImageNet's mean and deviation; for other than three channels, their means over RGB."""
    if channels == 3:
        return IMAGENET_MEAN, IMAGENET_STD
    return (round(sum(IMAGENET_MEAN) / 3, 3),) * channels, (
        round(sum(IMAGENET_STD) / 3, 3),
    ) * channels


def _resized(crop: tuple[int, int], *shares: float) -> tuple[int, int]:
    height, width = (
        max(side, round(side / share)) for side, share in zip(crop, shares, strict=True)
    )
    return height, width


def _per_channel(values: Sequence[float], channels: int, what: str) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) == 1:
        numbers *= channels
    if len(numbers) != channels or not all(map(math.isfinite, numbers)):
        raise UsageError(
            f"The {what} {list(values)} is neither one finite number nor one for each of the "
            f"{channels} channels."
        )
    return numbers


def of_preset(preset: Any) -> Evaluation | None:
    """The evaluation of a torchvision preset (`weights.transforms()`).

    None where the preset is no `ImageClassification`.
    """
    from torchvision.transforms._presets import ImageClassification

    if not isinstance(preset, ImageClassification):
        return None
    return Evaluation(
        resize=_square(preset.resize_size),
        crop=_square(preset.crop_size),
        mean=tuple(map(float, preset.mean)),
        std=tuple(map(float, preset.std)),
        interpolation=preset.interpolation.value,
    )


def _square(sides: Sequence[int]) -> tuple[int, int]:
    return int(sides[0]), int(sides[-1])


def of_timm(config: Mapping[str, Any]) -> Evaluation | None:
    """The evaluation of timm's data configuration (`timm.data.resolve_data_config`).

    None where its crop is not the centre of a square at kept proportions.
    """
    _, height, width = config["input_size"]
    if config.get("crop_mode", "center") != "center" or height != width:
        return None
    resize = math.floor(height / config["crop_pct"])
    return Evaluation(
        resize=(resize, resize),
        crop=(height, width),
        mean=tuple(map(float, config["mean"])),
        std=tuple(map(float, config["std"])),
        interpolation=config["interpolation"],
    )


def own_transform(
    transform: Callable[[Image.Image], Any],
    channels: int,
    source: str,
    settings: Mapping[str, object] | None = None,
) -> Preprocessing:
    """The preprocessing of a transform that is taken as it is.

    `settings` describe it; by default its `repr` does, or a function's name. Its shape is found
    by giving it a black picture of 320 x 240.

    Raises:
        ModelError: its `repr` has an object's address in it and so tells nothing, or it gives
            something else than a float tensor (C, H, W).
    """
    if settings is None:
        settings = {"transform": _text(transform)}
    probe = Image.new("L" if channels == 1 else "RGB", (320, 240))
    try:
        result = transform(probe)
    except Exception as error:  # the transform is the user's own code
        raise ModelError(
            f"The transform of {source} fails on a picture ({probe.mode}, 320 x 240): "
            f"{type(error).__name__}: {error}."
        ) from error
    shape = tuple(getattr(result, "shape", ()))
    if len(shape) != 3 or shape[0] != channels:
        raise ModelError(
            f"The transform of {source} gives {type(result).__name__} {shape or ''} for a picture, "
            f"and has to give a float tensor ({channels}, H, W)."
        )
    whole = (int(shape[0]), int(shape[1]), int(shape[2]))
    description = {"source": source, "channels": channels, **settings, "options": [], "assumed": []}
    preprocessing = Preprocessing(whole, transform, description)
    preprocessing(probe)
    return preprocessing


def normalisation(
    preprocessing: Preprocessing,
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation by which values from 0 to 1 are normalised, one a channel.

    They are those that the preprocessing states, or those of a transform of the model's own that
    ends in torchvision's `Normalize` (or `ToTensor`: mean 0, deviation 1). None where neither says.
    """
    channels = preprocessing.shape[0]
    said: tuple[Any, Any] | None = None
    if {"mean", "std"} <= preprocessing.description.keys():
        said = preprocessing.description["mean"], preprocessing.description["std"]
    else:
        transform: Any = preprocessing.transform
        last = (list(getattr(transform, "transforms", ())) or [transform])[-1]
        if type(last).__name__ == "Normalize" and hasattr(last, "mean") and hasattr(last, "std"):
            said = last.mean, last.std
        elif type(last).__name__ == "ToTensor":
            said = (0.0,), (1.0,)
    if said is None:
        return None
    mean, std = (tuple(map(float, values)) for values in said)
    if len(mean) == 1:
        mean *= channels
    if len(std) == 1:
        std *= channels
    return (mean, std) if len(mean) == len(std) == channels else None


def picture(preprocessing: Preprocessing, image: Tensor) -> Image.Image:
    """What the network takes, (C, H, W), as a picture of H x W pixels that a person sees.

    The normalisation is undone: mode `RGB` for three channels, `L` for one. Other numbers of
    channels become the mean over them, in grey. That mean, and images whose normalisation is not
    known or is plainly another one, are scaled from their own range to black and white.
    """
    values = image.detach().to("cpu", torch.float32).nan_to_num(0.0)
    known = normalisation(preprocessing)
    if len(values) not in (1, 3):
        values, known = values.mean(0, keepdim=True), None
    if known is not None:
        mean, std = (torch.tensor(each).reshape(-1, 1, 1) for each in known)
        undone = values * std + mean
        if float(undone.min()) >= -_BEYOND and float(undone.max()) <= 1 + _BEYOND:
            return _shown(undone)
    low, high = float(values.min()), float(values.max())
    return _shown((values - low) / max(high - low, 1e-12))


def _shown(values: Tensor) -> Image.Image:
    """Values from 0 to 1, (1 or 3, H, W), as a picture."""
    pixels = (values.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _text(transform: object) -> str:
    """A transform in words that are the same in every run."""
    name = getattr(transform, "__qualname__", None)
    if name is not None and "<lambda>" not in name:
        return f"function {name}"
    text = repr(transform)
    if _ADDRESS.search(text):
        raise ModelError(
            f"The model's transform is described as {text[:200]}, an address that is another one "
            "in every run. Use a named function, or give its class a __repr__ that states its "
            "settings."
        )
    return text
