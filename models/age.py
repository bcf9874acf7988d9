"""Age from an image: an encoder, global average pooling and a small head.

    model = AgeRegressor(build_encoder("resnet18"))
    model.fit(torch.tensor(train_ages))
    ages = model(images)                               # (B, 3, H, W) -> (B,), in the unit of the table

The scale of the target is part of the model, so a checkpoint predicts years (or weeks) by itself.
"""

import torch
from torch import nn


class AgeRegressor(nn.Module):
    """images (B, 3, H, W), uint8 or float in [0, 1] -> ages (B,) in the unit of the targets.

    The output is target_median + target_sd * head(features), and the head's last layer starts at zero: the
    first prediction is the train median for everybody, so training begins at the error of the median
    predictor instead of spending epochs on finding the level of the target. encoder: from models/encoders.py,
    or any module with `out_channels` that returns (B, out_channels, h, w). freeze_batchnorm: BatchNorm keeps
    the statistics it was loaded with (a short fine-tuning of pretrained weights does not wait for new ones).
    """

    def __init__(
        self, encoder: nn.Module, dropout: float = 0.5, hidden: int = 256, freeze_batchnorm: bool = False
    ):
        super().__init__()
        self.encoder, self.freeze_batchnorm = encoder, freeze_batchnorm
        self.head = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(encoder.out_channels, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, 1),
        )
        nn.init.zeros_(self.head[-1].weight)
        nn.init.zeros_(self.head[-1].bias)
        self.register_buffer("target_median", torch.tensor(0.0))
        self.register_buffer("target_sd", torch.tensor(1.0))

    def fit(self, ages: torch.Tensor) -> None:
        """Take median and standard deviation from the ages (N,) of the train part; saved with the weights."""
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
        features = self.encoder(images).mean(dim=(2, 3))  # (B, C, h, w) -> (B, C)
        return self.target_median + self.target_sd * self.head(features).squeeze(1)  # (B,)
