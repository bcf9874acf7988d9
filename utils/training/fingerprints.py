"""Weights in two numbers a tensor: did they change, are they the same elsewhere?"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor


def fingerprints(tensors: Iterable[Tensor]) -> np.ndarray:
    """(K, 2) doubles, cheap and equal for equal tensors: a sum weighted by place, one of absolute values.

    Without the weights a step that moves two biases against each other would not show.
    """
    sums = []
    for tensor in tensors:
        flat = tensor.detach().double().flatten()
        place = torch.linspace(1, 2, len(flat), dtype=torch.float64, device=flat.device)
        sums.append(torch.stack([flat @ place, flat.abs().sum()]))
    return torch.stack(sums).cpu().numpy() if sums else np.zeros((0, 2))
