"""Age from an image: an encoder, global average pooling and a small head.

    model = AgeRegressor(build_encoder("resnet18"))
    model.fit(torch.tensor(train_ages))
    ages = model(images)                               # (B, 1, H, W) -> (B,), in the unit of the table

The scale of the target is part of the model, so a checkpoint alone predicts years (or weeks).
"""

import torch
from torch import nn
from torch.nn import functional as F

from models.heads import Head

# Trained models reach 40 to 500 on the built-in sample and on HC18; nearly constant models reach 1.
CLEAR = 20


class AgeRegressor(nn.Module):
    """images (B, 1 or 3, H, W), uint8 or float in [0, 1] -> ages (B,) in the unit of the targets.

    The output is target_median + target_sd * head(features), and the head's last layer starts at zero:
    training begins at the error of the median instead of spending epochs to find the level of the target.
    encoder: any module with `out_channels` that returns (B, out_channels, h, w). freeze_batchnorm: BatchNorm
    keeps the statistics that were loaded (for short fine-tuning, which is too short to learn new ones)."""

    def __init__(self, encoder: nn.Module, dropout: float = 0.5, freeze_batchnorm: bool = False):
        super().__init__()
        self.encoder, self.freeze_batchnorm = encoder, freeze_batchnorm
        layers = nn.Dropout(dropout), nn.Linear(encoder.out_channels, 256), nn.ReLU(), nn.Dropout(dropout)
        self.head = Head(*layers, nn.Linear(256, 1))
        nn.init.zeros_(self.head[-1].weight)
        nn.init.zeros_(self.head[-1].bias)
        self.register_buffer("target_median", torch.tensor(0.0))
        self.register_buffer("target_sd", torch.tensor(1.0))

    def fit(self, ages: torch.Tensor) -> None:
        """Set the target's median and standard deviation from the train ages (N,); saved with the weights."""
        if len(ages) < 2 or not ages.std() > 0:
            raise ValueError("the target's scale needs at least two different ages")
        self.target_median.fill_(ages.float().quantile(0.5))
        self.target_sd.fill_(ages.float().std(correction=0))

    def train(self, mode: bool = True) -> "AgeRegressor":
        super().train(mode)
        if self.freeze_batchnorm:
            for module in self.encoder.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = images.expand(-1, 3, -1, -1)  # here and not in the batch, which a loader pins for CUDA
        features = self.encoder(images).mean(dim=(2, 3))  # (B, C, h, w) -> (B, C)
        return self.target_median + self.target_sd * self.head(features).squeeze(1)  # (B,)


def explain(model: AgeRegressor, images: torch.Tensor) -> torch.Tensor:
    """(B, H, W) in [0, 1], on the CPU: how much each pixel of images (B, 1 or 3, H, W) uint8 changes
    the age.

    The smoothed absolute gradient (Simonyan et al. 2014), divided by its maximum. A map is dimmed if the
    gradients of all pixels sum to less than CLEAR sd of the targets. Sets eval mode."""
    model.eval()
    images = images.expand(-1, 3, -1, -1).to(model.target_sd.device)
    inputs = (images.float() / 255).requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(model(inputs).sum(), inputs)
    side = max(3, images.shape[-1] // 24 * 2 + 1)
    heat = F.avg_pool2d(gradient.abs().sum(dim=1, keepdim=True), side, stride=1, padding=side // 2)[:, 0]
    total, most = heat.sum(dim=(1, 2), keepdim=True), heat.amax(dim=(1, 2), keepdim=True)
    return ((total / (CLEAR * model.target_sd)).clamp(max=1) * heat / most.clamp(min=1e-12)).cpu()
