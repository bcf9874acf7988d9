"""The weights of a model as a whole: averaged over steps, and in two numbers a tensor."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, decay: float, step: int, warm_up: bool = True) -> None:
    """average = d * average + (1 - d) * model, weights and statistics; whole numbers are copied. d = decay,
    less in the first steps: (1 + step) / (10 + step), so that a short run does not stay where it began;
    without `warm_up`, nothing in step 0 alone, which copies."""
    least = (1 + step) / (10 + step) if warm_up else min(step, 1)
    weight = 1 - min(decay, least)
    now = model.state_dict()
    for name, tensor in average.state_dict().items():  # the tensors themselves, not copies
        if tensor.is_floating_point():
            tensor.lerp_(now[name], weight)
        else:
            tensor.copy_(now[name])


def fingerprints(tensors: Iterable[Tensor]) -> np.ndarray:
    """(K, 2) doubles, cheap and equal for equal tensors: a sum weighted by place, one of absolute values.
    Without the weights a step that moves two biases against each other would not show."""
    sums = []
    for tensor in tensors:
        flat = tensor.detach().double().flatten()
        place = torch.linspace(1, 2, len(flat), dtype=torch.float64, device=flat.device)
        sums.append(torch.stack([flat @ place, flat.abs().sum()]))
    return torch.stack(sums).cpu().numpy() if sums else np.zeros((0, 2))
