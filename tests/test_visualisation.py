from __future__ import annotations

import io
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from summit_graph import ingest
from summit_graph.atlas.atlas import Atlas
from summit_graph.atlas.features import FOLDER, read_features
from summit_graph.errors import AtlasError, ModelError, UnknownNeuron, UsageError
from summit_graph.network.digits import DigitsCNN, digits_cnn
from summit_graph.network.loading import LoadedModel, load_model
from summit_graph.network.preprocessing import own_transform
from summit_graph.reporting import Stage
from summit_graph.visualisation import decoded, encoded, input_scale, visualise

ROOT = Path(__file__).parents[1]

MANY = """
import torch
from torch import nn


class Many(nn.Module):
    input_shape = (5, 8, 8)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(5, 6, 3, padding=1)
        self.flat = nn.Linear(6 * 64, 7)
        self.out = nn.Linear(7, 2)

    def forward(self, x):
        return self.out(torch.relu(self.flat(torch.relu(self.conv(x)).flatten(1))))


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, number):
        made = torch.Generator().manual_seed(number)
        return torch.randn(5, 8, 8, generator=made), number % 2
"""


@pytest.fixture
def digits(demo_atlas: Path, tmp_path: Path) -> Path:
    """A demo atlas to write in."""
    atlas = tmp_path / "digits.atlas"
    shutil.copytree(demo_atlas, atlas, symlinks=True)
    return atlas


def files(atlas: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (atlas / FOLDER).glob("*-*-*.*")}


def excited(module: nn.Module, layer: str, channel: int, image: Tensor) -> float:
    """The activation of a neuron, from the model itself."""
    seen: list[Tensor] = []
    part = module.get_submodule(layer)
    hook = part.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.no_grad():
        module(image.unsqueeze(0))
    hook.remove()
    return max(0.0, float(seen[0][0, channel].max()))


def test_the_demo_s_neurons(digits: Path) -> None:
    report = visualise(digits)
    with Atlas.open(digits) as atlas:
        graphs = [atlas.attribution_graph(record.index) for record in atlas.classes]
        names = {neuron.name for graph in graphs for neuron in graph.neurons}
        layers = {layer.number: layer.name for layer in atlas.layers}
        best = {name: atlas.examples(name)[0].activation for name in names}
    found = read_features(digits)
    assert {f"{layers[layer]}/{channel}" for layer, channel in found} == names
    assert report.neurons == report.made == report.compared == len(names)
    assert report.pictures == 5 * len(names)
    assert (report.kept, report.dead, report.size, report.seed) == (0, (), 8, 0)
    assert report.stronger >= 0.9 * len(names)

    module = digits_cnn()
    weaker = []
    for (layer, channel), own in found.items():
        name = f"{layers[layer]}/{channel}"
        assert [feature.variant for feature in own] == [0, 1, 2, 3, 4]
        for feature in own:
            with Image.open(digits / FOLDER / feature.file) as picture:
                assert (picture.format, picture.size) == ("WEBP", (8, 8))
                image = module.transform(picture.convert("L"))
            assert feature.activation == pytest.approx(
                excited(module, layers[layer], channel, image), rel=1e-4, abs=1e-5
            )
            assert feature.best_example == pytest.approx(best[name])
            assert (feature.steps, feature.size, feature.seed) == (report.steps, 8, 0)
        if own[0].activation <= best[name]:
            weaker.append(name)
    assert sorted(report.weaker) == sorted(weaker)
    assert report.stronger == len(names) - len(weaker)


def test_what_is_there_is_kept_and_what_differs_is_made_again(digits: Path) -> None:
    first = visualise(digits, neurons=["conv2/3", "conv3/1?"], steps=3, diverse=2)
    assert (first.made, first.kept, first.pictures) == (11, 0, 33)
    before = files(digits)
    times = {path: path.stat().st_mtime_ns for path in (digits / FOLDER).glob("*.webp")}

    more = visualise(digits, neurons=["conv2/*"], steps=3, diverse=2)
    assert (more.made, more.kept) == (23, 1)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert len(files(digits)) == 34 * 3

    same = visualise(digits, neurons=["conv3/1?"], steps=3, diverse=0)
    assert (same.made, same.kept) == (0, 10)
    for change in ({"steps": 4}, {"size": 12}, {"seed": 1}, {"diverse": 3}, {"format": "png"}):
        asked = {"steps": 3, "diverse": 2, **change}
        assert visualise(digits, neurons=["conv2/3"], **asked).made == 1  # type: ignore[arg-type]
    found = read_features(digits)[1, 3]
    assert [feature.file for feature in found] == ["1-3-0.png", "1-3-1.png", "1-3-2.png"]
    now = files(digits)
    assert not {f"1-3-{variant}.webp" for variant in range(4)} & now.keys()
    assert {name: data for name, data in now.items() if name[:2] == "2-"} == {
        name: data for name, data in before.items() if name[:2] == "2-"
    }


def test_a_seed_makes_the_same_files(digits: Path, tmp_path: Path) -> None:
    made = []
    for seed in (5, 5, 6):
        visualise(digits, neurons=["conv3/2", "conv3/9"], steps=12, diverse=1, seed=seed)
        made.append(files(digits))
        shutil.rmtree(digits / FOLDER)
    assert made[0] == made[1]
    assert all(made[0][name] != made[2][name] for name in made[0])


class Cancelled:
    """A progress whose user presses Ctrl-C once two units are done."""

    def __init__(self) -> None:
        self.done = 0

    @contextmanager
    def stage(self, title: str, total: int | None, unit: str) -> Iterator[Stage]:
        yield self

    def warn(self, message: str) -> None:
        raise AssertionError(message)

    def advance(self, count: int = 1) -> None:
        self.done += count
        if self.done == 2:
            raise KeyboardInterrupt

    def note(self, text: str) -> None: ...


def test_a_cancelled_run_goes_on(digits: Path, tmp_path: Path) -> None:
    names = ["conv2/1", "conv2/2", "conv3/3", "conv3/4"]
    options = {"neurons": names, "steps": 6, "diverse": 2, "batch_size": 1}
    whole = tmp_path / "whole.atlas"
    shutil.copytree(digits, whole, symlinks=True)
    visualise(whole, **options)  # type: ignore[arg-type]

    with pytest.raises(KeyboardInterrupt):
        visualise(digits, progress=Cancelled(), **options)  # type: ignore[arg-type]
    assert sorted(read_features(digits)) == [(1, 1), (1, 2)]
    report = visualise(digits, **options)  # type: ignore[arg-type]
    assert (report.made, report.kept) == (2, 2)
    assert files(digits) == files(whole)
    assert read_features(digits) == read_features(whole)


def test_a_killed_run_goes_on(digits: Path) -> None:
    code = (
        "import sys; from summit_graph.visualisation import visualise\n"
        "visualise(sys.argv[1], neurons=['conv3/*'], steps=40, batch_size=1)"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code, str(digits)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    end = time.monotonic() + 240
    while len(read_features(digits)) < 2 and run.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    there = files(digits)
    kept = sorted(read_features(digits))
    assert 2 <= len(kept) < 32
    named = [f"conv3/{channel}" for _, channel in kept]
    report = visualise(digits, neurons=[*named, "conv3/31"], steps=40)
    assert (report.kept, report.made) == (len(kept), 1)
    now = files(digits)
    assert all(now[feature] == there[feature] for feature in there.keys() & now.keys())
    assert {name for name in now if name.startswith("2-31-")} == {
        f"2-31-{variant}.webp" for variant in range(5)
    }


def test_neurons_by_name_and_every_one(digits: Path) -> None:
    report = visualise(digits, every=True, steps=1, diverse=0, size=4)
    assert report.neurons == report.made == 16 + 24 + 32 + 32
    assert report.size == 4
    for names, said in (
        (["conv9/1"], "conv1, conv2"),
        (["conv3/32"], "0 to 31"),
        (["conv3"], "layer"),
        (["mixed*"], "conv1, conv2"),
        (["conv3/4?"], "conv3/4"),
    ):
        with pytest.raises(UnknownNeuron, match=said):
            visualise(digits, neurons=names)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"size": 3}, "at least 4"),
        ({"diverse": -1}, "diverse is -1"),
        ({"diverse": 101}, "at most 100"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1 << 63}, "seed"),
        ({"format": "gif"}, "webp or png"),
        ({"every": True, "neurons": ["conv1/0"]}, "leave one out"),
        ({"device": "tpu"}, "auto, cpu, cuda or mps"),
        ({"device": "cuda:99"}, "no device 'cuda:99'"),
    ],
)
def test_options_out_of_range(options: dict[str, object], said: str, demo_atlas: Path) -> None:
    with pytest.raises(UsageError, match=said):
        visualise(demo_atlas, **options)  # type: ignore[arg-type]
    assert not (demo_atlas / FOLDER).exists()


def damaged() -> DigitsCNN:
    module = digits_cnn()
    module.conv4.conv.weight.data[3, 3, 1, 1] += 0.5
    return module


def test_other_weights_are_refused(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("from test_visualisation import damaged\n")
    with pytest.raises(ModelError, match="--model and --weights"):
        visualise(digits, model=f"{tmp_path / 'other.py'}:damaged")
    with pytest.raises(ModelError, match="not those that the atlas was counted with"):
        visualise(digits, model="torchvision:squeezenet1_0")
    loaded = load_model("summit_graph.network.digits:digits_cnn")
    assert visualise(digits, model=loaded, neurons=["conv1/0"], steps=1).made == 1


def test_an_atlas_that_cannot_have_pictures(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(AtlasError, match="no such folder"):
        visualise(tmp_path / "absent.atlas")
    with pytest.raises(AtlasError, match="not an atlas"):
        visualise(tmp_path)
    (digits / FOLDER).mkdir()
    (digits / FOLDER / "features.parquet").write_bytes(b"no table")
    with pytest.raises(AtlasError, match="cannot be read"):
        visualise(digits, neurons=["conv1/0"], steps=1)


def test_a_partial_atlas_is_refused(tmp_path: Path) -> None:
    from atlas import published

    from summit_graph.atlas.summit import import_summit

    published.write(tmp_path / "ag", {3: published.content(3)})
    published.class_file(tmp_path / "classes.csv")
    import_summit(tmp_path / "ag", tmp_path / "atlas", classes_file=tmp_path / "classes.csv")
    with pytest.raises(AtlasError, match="no model to make pictures with"):
        visualise(tmp_path / "atlas")


def test_many_channels_and_a_layer_of_one_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "many.py").write_text(MANY)
    monkeypatch.chdir(tmp_path)
    atlas = tmp_path / "many.atlas"
    ingest(model="many.py:Many", images="many.py:Images", atlas=atlas, layers=["conv", "flat"])
    report = visualise(atlas, every=True, steps=48, diverse=1)
    assert (report.neurons, report.size, report.stronger) == (13, 8, 13)
    found = read_features(atlas)
    for own in found.values():
        for feature in own:
            with Image.open(atlas / FOLDER / feature.file) as picture:
                pixels = np.asarray(picture.convert("L"))
                assert picture.size == (8, 8)
            assert (pixels.min(), pixels.max()) == (0, 255)

    assert visualise(atlas, neurons=["conv/*"], steps=1, size=16).size == 16
    with pytest.raises(UsageError, match="does not run on images of 16 x 16"):
        visualise(atlas, neurons=["flat/0"], steps=1, size=16)

    monkeypatch.chdir(ROOT)
    with pytest.raises(ModelError, match="Name it with --model"):
        visualise(atlas, steps=1)
    again = visualise(atlas, model=f"{tmp_path / 'many.py'}:Many", neurons=["flat/0"], steps=1)
    assert again.made == 1


def inverted(picture: Image.Image) -> Tensor:
    """1 for black, -3 for white."""
    values = torch.from_numpy(np.asarray(picture.resize((6, 6)), np.float32)) / 255
    return (1 - 4 * values).reshape(6, 6, -1).permute(2, 0, 1)


def unclear(picture: Image.Image) -> Tensor:
    """The same for all pictures."""
    return torch.zeros(3, 6, 6)


def test_the_scale_of_the_input() -> None:
    own = own_transform(inverted, 3, "here")
    assert input_scale({"mean": [0.1, 0.2, 0.3], "std": [1, 2, 3]}, own) == (
        (0.1, 0.2, 0.3),
        (1, 2, 3),
    )
    mean, std = input_scale({}, own)
    assert mean == pytest.approx((0.25,) * 3)
    assert std == pytest.approx((-0.25,) * 3)
    assert input_scale({}, own_transform(unclear, 3, "here")) == ((0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize("format_", ["webp", "png"])
@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 8), (1, 96), (3, 96)])
def test_files_hold_the_image(channels: int, side: int, format_: str) -> None:
    waves = torch.linspace(0, 6, side)
    image = torch.stack(
        [0.5 + 0.4 * torch.sin(waves + c).unsqueeze(1) * torch.cos(waves) for c in range(channels)]
    )
    data = encoded(image, format_)
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == format_.upper()
    found = decoded(data, channels)
    assert found.shape == image.shape
    exact = format_ == "png" or side < 64
    assert float((found - image).abs().max()) < (0.003 if exact else 0.06)


@pytest.mark.slow
def test_pictures_excite_more_than_examples(
    lite_model: LoadedModel, lite_atlas: Path, tmp_path: Path
) -> None:
    """EfficientNet-Lite0: at least 90 % of neurons from all layers of its graphs."""
    atlas = tmp_path / "lite.atlas"
    shutil.copytree(lite_atlas, atlas, symlinks=True)
    by_layer: dict[str, list[str]] = {}
    with Atlas.open(atlas) as opened:
        for record in opened.classes:
            for neuron in opened.attribution_graph(record.index).neurons:
                by_layer.setdefault(neuron.layer, []).append(neuron.name)
        layers = {layer.number: layer.name for layer in opened.layers}
        best = {}
        chance = random.Random(0)
        for names in by_layer.values():
            for name in chance.sample(sorted(set(names)), min(2, len(set(names)))):
                best[name] = opened.examples(name)[0].activation
    assert set(by_layer) == set(layers.values())
    assert len(best) >= 30
    report = visualise(atlas, model=lite_model, neurons=sorted(best), steps=48, size=96, diverse=0)
    assert report.compared == len(best)

    stronger = 0
    for (layer, channel), (feature,) in read_features(atlas).items():
        with Image.open(atlas / FOLDER / feature.file) as picture:
            assert picture.size == (96, 96)
            pixels = np.asarray(picture.convert("RGB"), np.float32) / 255
        image = (torch.from_numpy(pixels).permute(2, 0, 1) - 0.498) / 0.502
        found = excited(lite_model.module, layers[layer], channel, image)
        assert feature.activation == pytest.approx(found, rel=1e-3)
        stronger += found > best[f"{layers[layer]}/{channel}"]
    assert report.stronger == stronger
    assert stronger >= 0.9 * len(best)
