"""What config.json says of the recipe in a script's code, apart from flags. No torch."""

from typing import Any

FROM_FLAGS = ("lr", "weight_decay")


def recipe_of(config: dict[str, Any]) -> dict[str, Any]:
    """{'optimizer': 'SGD', 'optimizer_params.momentum': 0.9, ...} from its section "training", without the
    weights of a loss, which follow from the split, and the lengths of a schedule."""
    training, found = config.get("training", {}), {}
    for name in ("loss_function", "optimizer", "lr_scheduler"):
        found[name] = training.get(name)
    for name in ("loss_params", "optimizer_params"):
        found |= {f"{name}.{k}": v for k, v in training.get(name, {}).items() if k not in FROM_FLAGS}
    return {name: value for name, value in found.items() if value is not None}
