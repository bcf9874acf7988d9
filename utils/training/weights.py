"""A running average of weights, and fingerprints by which weights are compared."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, decay: float, step: int, warm_up: bool = True) -> None:
    """average = d * average + (1 - d) * model, for weights and statistics; integers are copied. d is `decay`,
    but at most (1 + step) / (10 + step), so that the average of a short run leaves its starting point;
    without `warm_up`, d is 0 in step 0, which copies, and `decay` from then on."""
    least = (1 + step) / (10 + step) if warm_up else min(step, 1)
    weight = 1 - min(decay, least)
    # The tensors themselves, not copies.
    pairs = list(zip(average.state_dict().values(), model.state_dict().values(), strict=True))
    floats = [pair for pair in pairs if pair[0].is_floating_point()]
    torch._foreach_lerp_(*map(list, zip(*floats, strict=True)), weight)
    for mine, now in pairs:
        if not mine.is_floating_point():
            mine.copy_(now)


def fingerprints(tensors: Iterable[Tensor]) -> np.ndarray:
    """(K, 2) doubles, equal for equal tensors: a sum weighted by position and the sum of absolute values.
    A plain sum would miss a step that moves two biases by the same amount in opposite directions."""
    sums = []
    for tensor in tensors:
        flat = tensor.detach().double().flatten()
        place = torch.linspace(1, 2, len(flat), dtype=torch.float64, device=flat.device)
        sums.append(torch.stack([flat @ place, flat.abs().sum()]))
    return torch.stack(sums).cpu().numpy() if sums else np.zeros((0, 2))
