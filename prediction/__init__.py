"""A trained model in a program of one's own:

import prediction
model = prediction.load("checkpoints/age_mae_experiment_...")  # a run folder or a .pth, of any script
tables = model.predict("FOLDER")                                # pandas, the columns of predict.py's CSVs

prediction.load([RUN, RUN]) predicts the mean of several runs, such as the folds of a cross-validation.
"""

import os


def load(run, device: str = "auto"):
    """A prediction.trained.Trained: the best checkpoint of a run, or this .pth, on a device (auto, cpu, cuda
    or cuda:N), ready to predict.

    CommandError for what is no run or checkpoint, is damaged, or predicts something else than the others.
    """
    from prediction.trained import open_together  # slow to import
    from utils.training.device import choose_device

    runs = [run] if isinstance(run, (str, os.PathLike)) else run
    return open_together(runs, choose_device(device))
