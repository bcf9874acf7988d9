"""A trained model in a program of one's own:

import prediction
model = prediction.load("checkpoints/age_mae_experiment_...")  # a run folder or a .pth, of any script
tables = model.predict("FOLDER")                                # pandas, the columns of predict.py's CSVs
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from prediction.trained import Trained


def load(run: "str | Path", device: str = "auto") -> "Trained":
    """The best checkpoint of a run, or this .pth, on a device (auto, cpu, cuda or cuda:N), ready to predict.

    Raises CommandError for what is no run or checkpoint of this project, or is damaged.
    """
    from prediction.trained import open_trained
    from utils.training.device import choose_device

    return open_trained(run, choose_device(device))
