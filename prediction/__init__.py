"""Use a trained model in your own program:

import prediction
model = prediction.load("checkpoints/age_mae_experiment_...")  # a run folder or a .pth, of any script
tables = model.predict("FOLDER")                                # pandas; columns as in predict.py's CSVs

prediction.load([RUN, RUN]) predicts the mean of several runs, such as the folds of a cross-validation.
"""

import os


def load(run, device: str = "auto"):
    """Load the best checkpoint of a run, or a .pth file, onto a device (auto, cpu, cuda or cuda:N) as a
    prediction.trained.Trained. CommandError if it is not a run or checkpoint, is damaged, or does not predict
    the same as the others."""
    from prediction.trained import open_together  # slow to import
    from utils.training.device import choose_device

    runs = [run] if isinstance(run, (str, os.PathLike)) else run
    return open_together(runs, choose_device(device))
