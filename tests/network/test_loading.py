"""Models by name and by file, their weights, and what is said when they do not fit."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from summit_graph.errors import ModelError, UsageError
from summit_graph.network.loading import (
    _own_file,
    load_model,
    load_state,
    read_state,
    weights_hash,
)

NETS = """
import torch
from torch import nn
from torchvision import transforms
from beside import WIDTH

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, WIDTH, 3)
        self.norm = nn.BatchNorm2d(WIDTH)
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).mean(dim=(2, 3)))

def build():
    net = Net().half()
    net.input_shape = (1, 28, 20)
    net.categories = ["off", "on"]
    return net

def with_transform():
    net = Net()
    net.transform = transforms.Compose([transforms.Resize((9, 9)), transforms.ToTensor()])
    return net

def contradicting():
    net = with_transform()
    net.input_shape = (1, 8, 8)
    return net

def misshapen():
    net = Net()
    net.input_shape = 28
    return net

def misnamed():
    net = Net()
    net.categories = "on off"
    return net

class Holder:
    make = Net

ready = Net()
number = 3

def failing():
    raise RuntimeError("no such layer")

def wrong():
    return 3
"""


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("WIDTH = 4\n")
    path = tmp_path / "nets.py"
    path.write_text(NETS)
    return path


# The four kinds of models


def test_a_function_in_a_file(nets: Path) -> None:
    before = list(sys.path), torch.random.get_rng_state()
    model = load_model(f"{nets}:build")
    assert sys.path == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])
    assert (model.name, model.spec, model.weights) == ("build", f"{nets}:build", "as built")
    assert model.categories == ("off", "on")
    assert not model.module.training
    assert {value.dtype for value in model.module.parameters()} == {torch.float32}
    assert not any(value.requires_grad for value in model.module.parameters())
    assert model.preprocessing.shape == (1, 28, 20)
    assert model.preprocessing.describe()["source"] == "nets.py:build"
    assert model.weights_hash == load_model(f"{nets}:build").weights_hash


def test_a_class_a_module_and_an_attribute_of_one(nets: Path) -> None:
    for name in ("Net", "ready", "Holder.make"):
        model = load_model(f"{nets}:{name}", image_size=32)
        assert model.name == name.rpartition(".")[2]
        assert model.preprocessing.shape == (1, 32, 32)
        assert model.categories is None
        assert model.weights_hash == load_model(f"{nets}:{name}").weights_hash


def test_files_do_not_share_what_lies_beside_them(nets: Path) -> None:
    other = nets.parent / "other"
    other.mkdir()
    (other / "beside.py").write_text("WIDTH = 6\n")
    (other / "nets.py").write_text(NETS)
    widths = [
        len(load_model(f"{folder}/nets.py:Net").module.state_dict()["conv.bias"])
        for folder in (nets.parent, other, nets.parent)
    ]
    assert widths == [4, 6, 4]


def test_a_callable_of_a_module(nets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(nets.parent))
    assert load_model("nets:build").name == "build"


def test_torchvision_with_random_weights() -> None:
    model = load_model("torchvision:squeezenet1_1")
    assert (model.name, model.weights, model.categories) == ("squeezenet1_1", "random", None)
    assert model.preprocessing.shape == (3, 224, 224)
    description = model.preprocessing.describe()
    assert description["source"] == (
        "torchvision SqueezeNet1_1_Weights.IMAGENET1K_V1, for other weights"
    )
    assert model.weights_hash == load_model("torchvision:squeezenet1_1").weights_hash
    assert load_model("torchvision:squeezenet1_1", image_size=96, mean=[0.5]).preprocessing.shape[
        1:
    ] == (96, 96)


def test_timm_with_random_weights() -> None:
    timm = pytest.importorskip("timm", reason="timm is an extra")
    model = load_model("timm:test_resnet")
    assert (model.name, model.weights, model.categories) == ("test_resnet", "random", None)
    description = model.preprocessing.describe()
    assert description["source"] == "timm test_resnet.r160_in1k, for other weights"
    assert model.preprocessing.shape == (3, 160, 160)
    config = timm.data.resolve_data_config({}, model=timm.create_model("test_resnet"))
    assert description["mean"] == list(config["mean"])
    assert description["interpolation"] == config["interpolation"]
    assert model.weights_hash == load_model("timm:test_resnet.r160_in1k").weights_hash


def test_timm_with_a_crop_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm", reason="timm is an extra")
    resolved = timm.data.resolve_data_config
    monkeypatch.setattr(
        timm.data,
        "resolve_data_config",
        lambda *given, **named: resolved(*given, **named) | {"crop_mode": "squash"},
    )
    model = load_model("timm:test_resnet")
    assert model.preprocessing.shape == (3, 160, 160)
    assert model.preprocessing.describe()["crop_mode"] == "squash"
    with pytest.raises(UsageError, match="taken as it is"):
        load_model("timm:test_resnet", image_size=96)


def test_timm_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r"pip install 'summit-graph\[timm\]'"):
        load_model("timm:test_resnet")


def test_a_transform_of_the_model(nets: Path) -> None:
    model = load_model(f"{nets}:with_transform")
    assert model.preprocessing.shape == (1, 9, 9)
    assert "Resize(size=(9, 9)" in str(model.preprocessing.describe()["transform"])
    with pytest.raises(UsageError, match="all of --image-size, --mean and --std"):
        load_model(f"{nets}:with_transform", mean=[0.1])
    model = load_model(f"{nets}:with_transform", 0 or None, 16, [0.1], [0.2])
    assert model.preprocessing.shape == (1, 16, 16)
    assert model.preprocessing.describe()["source"] == "options"


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("resnet18", UsageError, "'resnet18' names no model"),
        ("torchvision:resnet1", UsageError, "no torchvision classifier 'resnet1'. Near: resnet18"),
        ("torchvision:fcn_resnet50", UsageError, "no torchvision classifier"),
        ("timm:tset_resnet", UsageError, r"no timm model 'tset_resnet'. Near: test_resnet"),
        ("timm:test_resnet.x_in1k", UsageError, "no weights 'x_in1k' .* It knows: r160_in1k"),
        ("no_such_package:net", UsageError, "no module 'no_such_package'"),
        ("{nets}:number", UsageError, "is a int, and has to be a module, or a class or function"),
        ("{nets}:none", UsageError, "has no 'none'"),
        ("{nets}:failing", ModelError, "fails: RuntimeError: no such layer"),
        ("{nets}:wrong", ModelError, "makes a int, and has to make a module"),
        ("{nets}:contradicting", ModelError, r"shape \(1, 9, 9\), and its input_shape"),
        ("{nets}:misshapen", ModelError, r"is 28, and has to be \(channels, height, width\)"),
        ("{nets}:misnamed", ModelError, "have to be a list of names"),
    ],
)
def test_models_that_are_none(nets: Path, spec: str, error: type, message: str) -> None:
    if spec.startswith("timm"):
        pytest.importorskip("timm", reason="timm is an extra")
    with pytest.raises(error, match=message):
        load_model(spec.format(nets=nets))


# Weights by name


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty download cache of torch, on a machine without a network."""

    def no_network(url: str, *_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_torchvisions_weights_from_its_cache(cache: Path) -> None:
    entry = models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    state = models.squeezenet1_1().state_dict()
    torch.save(state, cache / Path(entry.url).name)
    for name in ("DEFAULT", "IMAGENET1K_V1", "SqueezeNet1_1_Weights.IMAGENET1K_V1"):
        model = load_model("torchvision:squeezenet1_1", name)
        assert model.weights == "SqueezeNet1_1_Weights.IMAGENET1K_V1"
        assert model.categories == tuple(entry.meta["categories"])
        assert model.preprocessing.describe()["source"] == (
            "torchvision SqueezeNet1_1_Weights.IMAGENET1K_V1"
        )
        assert torch.equal(
            model.module.state_dict()["classifier.1.bias"], state["classifier.1.bias"]
        )


def test_torchvisions_weights_without_a_network(cache: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load_model("torchvision:squeezenet1_1", "DEFAULT")
    message = str(caught.value)
    assert "no network" in message
    assert f"put {models.SqueezeNet1_1_Weights.DEFAULT.url} into {cache}" in message


def test_timms_weights_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm", reason="timm is an extra")
    create = timm.create_model

    def offline(name: str, pretrained: bool) -> nn.Module:
        if pretrained:
            raise OSError("no network")
        made: nn.Module = create(name)
        return made

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ModelError, match=r"timm's test_resnet\.r160_in1k .*OSError: no network"):
        load_model("timm:test_resnet", "r160_in1k")
    with pytest.raises(UsageError, match="names the weights r160_in1k, and --weights other"):
        load_model("timm:test_resnet.r160_in1k", "other")


def test_timms_weights_bring_category_names(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm", reason="timm is an extra")
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: create(name))
    model = load_model("timm:test_resnet", "DEFAULT")
    assert model.weights == "r160_in1k"
    assert model.preprocessing.describe()["source"] == "timm test_resnet.r160_in1k"
    assert model.categories is not None
    assert (len(model.categories), model.categories[0]) == (1000, "tench")


def test_weights_of_no_such_name(nets: Path) -> None:
    with pytest.raises(
        UsageError, match=r"no weights 'V9' for squeezenet1_1. It knows: IMAGENET1K"
    ):
        load_model("torchvision:squeezenet1_1", "V9")
    with pytest.raises(UsageError, match="only torchvision and timm know weights by name"):
        load_model(f"{nets}:build", "DEFAULT")


# Weights in a file


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.safetensors"])
def test_weights_in_a_file(nets: Path, tmp_path: Path, name: str) -> None:
    state = Small().state_dict()
    state["norm.running_mean"] += 0.5
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    model = load_model(f"{nets}:build", str(path))
    assert model.weights == name
    for key, value in model.module.state_dict().items():
        assert torch.equal(value, state[key])
    assert model.weights_hash == weights_hash(model.module)
    assert model.weights_hash != load_model(f"{nets}:build").weights_hash


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", None])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_checkpoints_and_wrappers(tmp_path: Path, key: str | None, prefix: str) -> None:
    state = Small().state_dict()
    content: Any = {prefix + name: value for name, value in state.items()}
    if key is not None:
        content = {"epoch": 7, key: content, "optimizer": {"lr": 0.1}}
    torch.save(content, tmp_path / "w.pth")
    read = read_state(tmp_path / "w.pth")
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], value) for name, value in state.items())


class Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_weights_file_is_not_run(tmp_path: Path, zipped: bool) -> None:
    mark = tmp_path / "was-run"
    content = {"weight": torch.zeros(1), "x": Malicious(mark)}
    path = tmp_path / "w.pt"
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(Malicious(mark)))
    with pytest.raises(ModelError, match="would run code"):
        read_state(path)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights", bytes(5000)])
def test_a_damaged_weights_file(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=r"The weights file '.*'"):
        read_state(tmp_path / name)


def test_a_truncated_weights_file(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(Small().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ModelError, match="cannot be read"):
        read_state(path)


def test_what_is_no_state_dict(tmp_path: Path) -> None:
    for content, message in [
        ([torch.zeros(1)], "holds a list, and no state dict"),
        ({}, "no state dict"),
        ({"weight": torch.zeros(1), "epoch": 3}, "holds 'epoch', a int and no tensor"),
    ]:
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(ModelError, match=message):
            read_state(tmp_path / "w.pt")


def test_files_that_are_not_there(nets: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no weights file"):
        load_model(f"{nets}:build", str(tmp_path / "gone.pt"))
    (tmp_path / "w.bin").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"ends in none of \.pt, \.pth, \.safetensors"):
        load_model(f"{nets}:build", str(tmp_path / "w.bin"))


def test_weights_of_another_model() -> None:
    state = Small().state_dict()
    del state["head.bias"]
    state["conv.weight"] = torch.zeros(9, 1, 3, 3)
    state |= {f"extra{number}": torch.zeros(1) for number in range(5)}
    with pytest.raises(ModelError) as caught:
        load_state(Small(), state, "w.pt")
    assert (
        "missing: head.bias; left over: extra0, extra1, extra2 and 2 more; "
        "of another shape: conv.weight (9, 1, 3, 3) for (4, 1, 3, 3)."
    ) in str(caught.value)


def test_old_checkpoints_do_not_count_batches() -> None:
    state = Small().state_dict()
    del state["norm.num_batches_tracked"]
    state["norm.bias"] += 1
    module = Small()
    load_state(module, state, "w.pt")
    assert torch.equal(module.norm.bias, state["norm.bias"])


def test_auxiliary_heads_are_left_aside() -> None:
    state = Small().state_dict()
    module = Small()
    load_state(module, {**state, "aux1.fc.weight": torch.zeros(1)}, "w.pt")
    module.aux1 = nn.Linear(2, 2)
    with pytest.raises(ModelError, match=r"missing: aux1\.weight, aux1\.bias; left over: aux1\.fc"):
        load_state(module, {**state, "aux1.fc.weight": torch.zeros(1)}, "w.pt")


def test_a_file_of_torchvisions_own_weights_is_known_by_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "downloaded.pth"
    path.write_bytes(b"weights")
    start = hashlib.sha256(b"weights").hexdigest()[:8]
    other = SimpleNamespace(url="https://example.org/net-01234567.pth")
    own = SimpleNamespace(url=f"https://example.org/net-{start}.pth")
    assert _own_file(path, [other, own]) is own
    assert _own_file(path, [other]) is None


def test_googlenet_has_no_auxiliary_heads() -> None:
    module = load_model("torchvision:googlenet").module
    assert not any(name.startswith("aux") for name in module.state_dict())


# The hash of weights


def linear(weight: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False)
    layer.weight = nn.Parameter(weight)
    return layer


def test_the_hash_sees_names_types_shapes_and_values() -> None:
    renamed = nn.Module()
    renamed.register_parameter("other", nn.Parameter(torch.zeros(3, 4)))
    modules = [
        linear(torch.zeros(3, 4)),
        linear(torch.zeros(4, 3)),
        linear(torch.zeros(3, 4, dtype=torch.float64)),
        linear(torch.eye(3, 4)),
        renamed,
    ]
    assert len({weights_hash(module) for module in modules}) == 5


def test_the_hash_is_of_values_and_not_of_how_they_lie() -> None:
    turned = torch.arange(12.0).reshape(4, 3).T
    assert weights_hash(linear(turned)) == weights_hash(linear(turned.contiguous()))
