"""Preprocessing is torchvision's and timm's to the bit, and says what it does."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms
from torchvision.models import get_model_weights
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from summit_graph.errors import ModelError, UsageError
from summit_graph.images.decoding import BadImage
from summit_graph.network.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Evaluation,
    Preprocessing,
    evaluation,
    normalisation,
    of_preset,
    of_timm,
    own_transform,
    picture,
)


def noise(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    shape = (height, width) if mode == "L" else (height, width, 3)
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(values)


@settings(deadline=None)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    resize=st.integers(1, 60),
    crop=st.integers(1, 60),
    interpolation=st.sampled_from(["bilinear", "bicubic", "nearest", "lanczos"]),
)
def test_it_is_torchvisions_preset(
    width: int, height: int, resize: int, crop: int, interpolation: str
) -> None:
    preset = ImageClassification(
        resize_size=resize, crop_size=crop, interpolation=InterpolationMode(interpolation)
    )
    ours = of_preset(preset)
    assert ours is not None
    image = noise(width, height)
    assert torch.equal(ours(image), preset(image))


@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "resnet50", "efficientnet_b0"])
def test_the_weights_own_transforms(name: str) -> None:
    for entry in get_model_weights(name):
        preset = entry.transforms()
        ours = of_preset(preset)
        assert ours is not None
        image = noise(400, 500)
        assert torch.equal(ours(image), preset(image))


def test_a_preset_of_another_kind_is_not_taken_for_one() -> None:
    assert of_preset(transforms.ToTensor()) is None


@pytest.mark.parametrize("crop_pct", [0.875, 0.95, 1.0])
def test_it_is_timms_evaluation(crop_pct: float) -> None:
    data = pytest.importorskip("timm.data", reason="timm is an extra")
    config = {
        "input_size": (3, 64, 64),
        "interpolation": "bicubic",
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "crop_pct": crop_pct,
        "crop_mode": "center",
    }
    ours = of_timm(config)
    assert ours is not None
    image = noise(150, 97)
    theirs = data.create_transform(**config, is_training=False)(image)
    assert torch.allclose(ours(image), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "other", [{"crop_mode": "squash"}, {"crop_mode": "border"}, {"input_size": (3, 64, 32)}]
)
def test_other_crops_of_timm_are_left_to_timm(other: dict[str, Any]) -> None:
    config = {
        "input_size": (3, 64, 64),
        "interpolation": "bicubic",
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "crop_pct": 0.9,
        "crop_mode": "center",
    }
    assert of_timm({**config, **other}) is None


def test_by_hand() -> None:
    """4 x 2 pixels; the crop is the two middle columns; black becomes -1, white 1."""
    image = Image.new("L", (4, 2), 0)
    image.putpixel((1, 0), 255)
    image.putpixel((3, 1), 255)
    ours = Evaluation(resize=(2, 2), crop=(2, 2), mean=(0.5,), std=(0.5,))
    assert ours(image).tolist() == [[[1, -1], [-1, -1]]]


@settings(deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.integers(1, 40), st.integers(1, 40))
def test_a_resized_picture_just_covers(width: int, height: int, tall: int, wide: int) -> None:
    ours = Evaluation((tall, wide), (tall, wide), (0.0,), (1.0,))
    result = ours(Image.new("L", (width, height), 255))
    assert result.shape == (1, tall, wide)
    assert bool((result == 1).all())  # nothing black came in at the borders


def test_a_picture_that_is_a_line() -> None:
    ours = Evaluation((256, 256), (224, 224), IMAGENET_MEAN, IMAGENET_STD)
    with pytest.raises(BadImage, match=r"^too long and narrow$"):
        ours(Image.new("RGB", (600, 1)))
    assert ours(Image.new("RGB", (400, 1))).shape == (3, 224, 224)


def test_nothing_is_known() -> None:
    preprocessing = evaluation(3, "mine.py:net")
    assert preprocessing.shape == (3, 224, 224)
    assert preprocessing.describe() == {
        "source": "mine.py:net",
        "channels": 3,
        "resize": [256, 256],
        "crop": [224, 224],
        "interpolation": "bilinear",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "options": [],
        "assumed": ["image size", "mean", "std"],
    }
    assert evaluation(1, "mine.py:net").describe()["mean"] == [0.449]


def test_options_go_first_and_the_rest_is_kept() -> None:
    known = Evaluation((232, 232), (224, 224), IMAGENET_MEAN, IMAGENET_STD, "bicubic")
    same = evaluation(3, "weights", 224, known=known)
    assert same.describe() | {"options": []} == {
        **known.describe(),
        "source": "weights",
        "channels": 3,
        "options": [],
        "assumed": [],
    }
    larger = evaluation(3, "weights", (448, 224), mean=[0.5], known=known).describe()
    assert larger["resize"] == [464, 232]
    assert larger["crop"] == [448, 224]
    assert larger["mean"] == [0.5, 0.5, 0.5]
    assert larger["std"] == list(IMAGENET_STD)
    assert larger["interpolation"] == "bicubic"
    assert larger["options"] == ["image size", "mean"]
    whole = evaluation(3, "weights", 224, [0.5], [0.5])
    assert (whole.describe()["source"], whole.describe()["assumed"]) == ("options", [])


def test_the_size_that_the_network_takes() -> None:
    description = evaluation(1, "mine.py:net", crop=(28, 28)).describe()
    assert (description["crop"], description["resize"]) == ([28, 28], [32, 32])
    assert description["assumed"] == ["mean", "std"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "no number of pixels above 0"),
        ({"image_size": (224, -1)}, "no number of pixels above 0"),
        ({"mean": [0.1, 0.2]}, r"mean \[0.1, 0.2\] is neither one finite number nor one for each"),
        ({"mean": [float("nan")]}, "neither one finite number"),
        ({"std": [0.2, 0.0, 0.2]}, "must be above 0"),
        ({"known": Evaluation((8, 8), (8, 8), (0.5,), (0.5,))}, "3 channels, and the .* is for 1"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        evaluation(3, "weights", **options)


def test_a_picture_of_another_mode() -> None:
    preprocessing = evaluation(3, "weights", 16)
    gray = noise(20, 20, "L")
    assert torch.equal(preprocessing(gray), preprocessing(gray.convert("RGB")))


# A transform of the model's own

COMPOSED = transforms.Compose(
    [transforms.Resize((10, 12)), transforms.ToTensor(), transforms.Normalize([0.5], [0.5])]
)


def halved(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image.resize((6, 4)), np.float64))[None] / 510


def test_a_transform_is_taken_as_it_is() -> None:
    preprocessing = own_transform(COMPOSED, 3, "mine.py:net")
    assert preprocessing.shape == (3, 10, 12)
    image = noise(50, 40)
    assert torch.equal(preprocessing(image), COMPOSED(image))
    description = preprocessing.describe()
    assert description == json.loads(json.dumps(description))
    assert "Resize(size=(10, 12)" in str(description["transform"])
    assert own_transform(COMPOSED, 3, "mine.py:net") == preprocessing


def test_a_named_function_is_described_by_its_name() -> None:
    preprocessing = own_transform(halved, 1, "mine.py:net")
    assert preprocessing.describe()["transform"] == "function halved"
    assert preprocessing.shape == (1, 4, 6)
    assert preprocessing(noise(8, 8, "L")).dtype == torch.float32


def test_a_description_has_no_addresses() -> None:
    class Opaque:
        def __call__(self, image: Image.Image) -> torch.Tensor:
            return halved(image)

    for transform in (Opaque(), lambda image: halved(image)):
        with pytest.raises(ModelError, match="another one in every run"):
            own_transform(transform, 1, "mine.py:net")


def sized(image: Image.Image) -> torch.Tensor:
    pixels: torch.Tensor = transforms.functional.to_tensor(image)
    return pixels


def whole(image: Image.Image) -> torch.Tensor:
    pixels: torch.Tensor = transforms.functional.pil_to_tensor(image)
    return pixels


def flat(image: Image.Image) -> torch.Tensor:
    return sized(image).flatten()


def failing(image: Image.Image) -> torch.Tensor:
    raise RuntimeError("no such thing")


def test_transforms_that_are_of_no_use() -> None:
    with pytest.raises(ModelError, match=r"gives a Tensor of torch\.uint8, and has to give a flo"):
        own_transform(whole, 3, "mine.py:net")
    with pytest.raises(ModelError, match=r"gives Tensor \(230400,\) for a picture"):
        own_transform(flat, 3, "mine.py:net")
    with pytest.raises(ModelError, match=r"gives Image "):
        own_transform(transforms.Resize(3), 3, "mine.py:net")
    with pytest.raises(ModelError, match=r"fails on a picture .*RuntimeError: no such thing"):
        own_transform(failing, 3, "mine.py:net")
    uncropped: Preprocessing = own_transform(sized, 3, "mine.py:net")
    with pytest.raises(ModelError, match=r"shape \(3, 5, 9\) for a picture of 9 x 5, and has to"):
        uncropped(noise(9, 5))


# Back to a picture


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_picture_comes_back_as_it_was(mode: str) -> None:
    channels = 3 if mode == "RGB" else 1
    mean, std = ([0.1, 0.5, 0.9], [0.2, 0.3, 0.4]) if channels == 3 else ([0.3], [0.4])
    preprocessing = evaluation(channels, "weights", (20, 30), mean, std)
    known = Preprocessing(
        (channels, 20, 30), Evaluation((20, 30), (20, 30), tuple(mean), tuple(std)),
        preprocessing.description,
    )  # fmt: skip
    image = noise(30, 20, mode)
    shown = picture(known, known(image))
    assert shown.mode == mode
    assert np.array_equal(np.asarray(shown), np.asarray(image))
    assert normalisation(known) == (tuple(mean), tuple(std))


def test_what_a_transform_of_ones_own_says() -> None:
    image = noise(12, 10)
    composed = transforms.Compose([*COMPOSED.transforms[:2], transforms.Normalize([0.2], [0.7])])
    for transform, expected in (
        (composed, ((0.2,) * 3, (0.7,) * 3)),
        (transforms.Compose([transforms.ToTensor()]), ((0.0,) * 3, (1.0,) * 3)),
    ):
        preprocessing = Preprocessing((3, 10, 12), transform, {"transform": repr(transform)})
        assert normalisation(preprocessing) == expected
        shown = picture(preprocessing, preprocessing(image))
        assert np.array_equal(np.asarray(shown), np.asarray(image))
    assert normalisation(own_transform(halved, 1, "mine.py:net")) is None


def test_a_normalisation_that_nobody_knows_is_scaled_to_its_range() -> None:
    unknown = own_transform(halved, 1, "mine.py:net")
    shown = picture(unknown, torch.tensor([[[-7.0, -6.0], [-5.0, -3.0]]]))
    assert np.asarray(shown).tolist() == [[0, 64], [128, 255]]
    assert np.asarray(picture(unknown, torch.full((1, 2, 2), 3.0))).tolist() == [[0, 0], [0, 0]]
    other = evaluation(1, "weights", 2, [0.5], [0.5])
    shown = picture(other, torch.tensor([[[-30.0, 0.0], [30.0, float("nan")]]]))
    assert np.asarray(shown).tolist() == [[0, 128], [255, 128]]
    assert np.asarray(picture(other, torch.tensor([[[-1.1, 1.1]]]))).tolist() == [[0, 255]]


def test_many_channels_become_their_mean() -> None:
    many = Preprocessing((4, 1, 3), halved, {"mean": [0.0], "std": [1.0]})
    shown = picture(many, torch.arange(12.0).reshape(4, 1, 3))
    assert (shown.mode, np.asarray(shown).tolist()) == ("L", [[0, 128, 255]])
