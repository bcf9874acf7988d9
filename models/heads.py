"""The last layers of a model, which compute in float32 even with --amp."""

import torch
from torch import Tensor, nn


class Head(nn.Sequential):
    """Layers in float32 whatever autocast says. With the three digits of bfloat16 there would be no age
    between 64 and 64.5 years, and many scores would tie."""

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.float())
