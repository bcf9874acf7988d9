"""What a failing sensor costs the anomaly detection: the same frames, clean and under each failure."""

from pathlib import Path

import numpy as np

from datasets.anovox.dataset import AnoVoxDataset
from prediction.trained import Trained
from utils.metrics.verdict import GroupJackknife
from utils.plotting.anomaly import plot_degradation
from utils.report.results import table, write_table

CLEAN = "clean"
METRICS = ("auroc", "ap", "fpr95", "f1", "precision", "recall", "calibration_error")
LOSS = ("auroc_change", "change_low", "change_high")


def degradation_table(
    trained: Trained, part: AnoVoxDataset, clean: dict[str, np.ndarray], corruptions: list[str], split: str,
    folder: Path,
) -> dict[str, dict[str, float | None]]:  # fmt: skip
    """METRICS of the clean frames and under each corruption, and what each costs in AUROC.

    Taken at the run's threshold and calibration; the change of AUROC has the 95% interval of the paired
    difference over scenarios. `clean`: the rows of the script's evaluate. Writes degradation.csv
    and degradation.png, prints the table.
    """
    script, state = trained.script, trained.state
    labels, found, change = clean["labels"], {}, {}
    ranked = len(np.unique(labels)) == 2  # else there is no AUROC
    jackknife = GroupJackknife(part.names(), labels, np.arange(len(labels)))

    for name in (CLEAN, *corruptions):
        rows = clean
        if name != CLEAN:
            rows = trained.evaluate(part, corruption=name, seed=trained.args.seed)
        # No figure used here depends on the loss's weight of anomalies.
        criterion = script.AnomalyLoss(1.0)
        row = script.measure(rows, part.scenario, criterion, state["threshold"], state["calibration"])
        found[name] = {key: row[key] for key in METRICS}
        if ranked:
            change[name] = jackknife.auroc(labels, rows["logits"])
        if ranked and name != CLEAN:
            low, high = jackknife.interval(change[name] - change[CLEAN])
            difference = found[name]["auroc"] - found[CLEAN]["auroc"]
            found[name] |= dict(zip(LOSS, (difference, low, high), strict=True))
    columns = [*METRICS, *LOSS]
    values = {key: np.array([row.get(key) for row in found.values()], float) for key in columns}
    write_table(folder / "degradation.csv", {"sensors": np.array(list(found)), **values})
    if ranked:
        plot_degradation(found, f"sensor failures on {split}", folder / "degradation.png")
    print(table(found, columns, "sensors"))
    return found
