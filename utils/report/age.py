"""The report of an age regression: metrics per image and per subject, intervals, figures, the verdict."""

import argparse
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import erfc

from utils.metrics import regression
from utils.metrics.regression import LEVEL, correct_bias, intervals, regression_metrics, subject_means
from utils.metrics.verdict import GroupJackknife, Verdict, divide, judge
from utils.plotting.age import explained, plot_bland_altman, plot_error_by_age, plot_scatter
from utils.report.results import figure_title, interval_lines, state_warnings, table
from utils.report.samples import report_samples
from utils.run.log import LOG, format_values

LEAST_SKILL = 0.01  # LEARNED with less gets a warning: nearly constant predictions can beat a constant too
HEADINGS = {"bmi": "body mass index (kg/m2)"}
NOTES = """Figures are not corrected for the regression towards the mean unless they say so. MAE, R2 and r \
depend on the range of ages; use the skill to compare cohorts."""


def measure(rows: dict[str, np.ndarray], criterion: torch.nn.Module) -> dict[str, float | None]:
    """Loss, the metrics of utils/metrics/regression.py per image, and the MAE per subject."""
    losses = criterion(torch.from_numpy(rows["preds"]), torch.from_numpy(rows["ages"]))
    _, ages, preds = subject_means(rows["subject_ids"], rows["ages"], rows["preds"])
    found = {"loss": float(losses.mean()), **regression_metrics(rows["ages"], rows["preds"])}
    return found | {"subject_mae": float(np.abs(preds - ages).mean())}


def report_age(
    build_model: Callable, explain: Callable, folder: Path, split: str, rows: dict[str, np.ndarray],
    data: Any, state: Mapping[str, Any],
) -> tuple[Verdict, dict[str, Any]]:  # fmt: skip
    """Judge the predictions of one split; write SPLIT_predictions.csv and figures.

    build_model: the script's; explain: of models/age.py, for mistakes.png; rows: ages, preds and subject_ids
    (N,), one per image; data: the AgeDatasets; state: the checkpoint. The verdict compares the error per
    subject (mean over its images) with the better of train mean and median, leaving out subjects.
    p_label in suspects.csv: the probability of an error at least this large if errors were normal (sd from
    their median absolute deviation). Returns the verdict and {metrics, baselines, confidence, warnings,
    sections}, the last for evaluation_report.txt.
    """
    truncated = state["args"]["max_batches"] > 0
    part, unit, title = data.parts[split], data.unit, f"{state['script']} on {split}"
    ages, preds, ids = rows["ages"].astype(float), rows["preds"].astype(float), rows["subject_ids"]
    errors = preds - ages
    subjects, subject_ages, subject_preds = subject_means(ids, ages, preds)
    per_image, per_subject = regression_metrics(ages, preds), regression_metrics(subject_ages, subject_preds)
    baselines, trivial = {}, {}
    for name, guess in regression.trivial_predictions(data.references()["train_labels"], len(ages)).items():
        trivial[name] = guess[: len(subject_ages)]
        found = regression_metrics(subject_ages, trivial[name])
        baselines[name] = regression_metrics(ages, guess) | {f"subject_{k}": v for k, v in found.items()}
    best = min(baselines, key=lambda name: baselines[name]["subject_mae"])

    # One row per subject: more images of each cannot narrow the interval.
    by_subject, by_image = GroupJackknife(subjects), GroupJackknife(ids)
    subject_mae = by_subject.means(np.abs(subject_preds - subject_ages))
    floor_mae = by_subject.means(np.abs(trivial[best] - subject_ages))
    judged = f"MAE per subject ({unit})", subject_mae, floor_mae, best, split, by_subject
    verdict = judge(*judged, unit="subjects", higher_is_better=False, truncated=truncated)
    confidence = by_image.intervals(mae=by_image.means(np.abs(errors)))
    skill = 1 - divide(subject_mae, floor_mae)
    confidence |= by_subject.intervals(subject_mae=subject_mae, skill=skill)
    of_image = np.searchsorted(subjects, ids)  # position of each image's subject
    low, high = intervals(state.get("intervals"), subject_preds)
    low_image, high_image = low[of_image], high[of_image]
    band, width = regression.age_bands(subject_ages)
    labels = {"age": [f"{k * width:g} to {(k + 1) * width:g}" for k in band[of_image]], **part.groups}
    each = ids, ages, preds, low_image, high_image, trivial[best][0]
    by = {name: break_down(np.array(label), *each) for name, label in labels.items()}
    warnings = state_warnings(state)
    several = {name: row for name, row in by["age"].items() if row["subjects"] > 2}
    if worse := [name for name, row in several.items() if row["mae"] > row["baseline_mae"]]:
        warnings.append(f"worse than the {best}: at ages {', '.join(worse)} {unit}")
    metrics: dict[str, Any] = {f"subject_{key}": value for key, value in per_subject.items()}
    metrics |= {"skill": 1 - per_subject["mae"] / baselines[best]["subject_mae"], "by": by}
    if verdict.learned and metrics["skill"] < LEAST_SKILL:
        warnings.append(f"the gain over the {best} is real but of no use: skill {metrics['skill']:.2g}")
    if not np.isnan(low).any():
        inside = (low <= subject_ages) & (subject_ages <= high)
        metrics |= {"coverage": float(inside.mean()), "interval_width": float((high - low).mean())}
        confidence |= by_subject.intervals(coverage=by_subject.means(inside))
    corrected = correct_bias(state.get("intervals"), subject_preds)

    names = np.array(part.subjects)
    written = {
        "file": np.array(part.files), "subject": names[ids], "age": ages, "prediction": preds,
        "error": errors, "subject_prediction": subject_preds[of_image], "low": low_image, "high": high_image,
        **{name: np.array(values) for name, values in part.groups.items()},
    }  # fmt: skip
    spread = 1.4826 * float(np.median(np.abs(errors - np.median(errors)))) or 1.0

    def look(image: int) -> list[np.ndarray]:
        return explained(part.__getitems__([image]), partial(explain, model))

    model, _ = build_model(argparse.Namespace(**state["args"] | {"weights": "none"}))
    model.load_state_dict(state["model"])
    report_samples(folder, split, state, written, erfc(np.abs(errors) / spread / 2**0.5), look)
    heading = figure_title(state, split)
    drawn = subject_ages, subject_preds, names[subjects], unit, heading
    bounds = None if np.isnan(low).any() else (low, high)
    plot_scatter(*drawn, folder / "scatter.png", bounds)
    plot_bland_altman(*drawn, folder / "bland_altman.png")
    plot_error_by_age(by["age"], unit, heading, folder / "error_by_age.png")

    columns = [key for key in per_image if key != "mse"]  # RMSE says the same in the unit of the target
    floors = {name: {key: row[f"subject_{key}"] for key in columns} for name, row in baselines.items()}
    counted = ["subjects", "mae", "low", "high", "baseline_mae", "bias", "sd"]
    counted += ["coverage"] if "coverage" in metrics else []
    heading = f"per subject: {len(subjects)} subjects, mean over their images, {unit}"
    sections = {
        heading: table({"model": per_subject, **floors}, columns),
        f"per image: {len(ages)} images, {unit}": table({"model": per_image, **baselines}, columns),
        "95% intervals of the model, jackknife over subjects": interval_lines(confidence),
        f"skill = 1 - MAE / MAE of the {best}, per subject": f"{metrics['skill']:.3f}",
        "interval of each person": describe_intervals(state.get("intervals"), metrics, split, unit),
    }
    if corrected is not None:
        metrics["corrected"] = regression_metrics(subject_ages, corrected)
        what = "corrected for the regression towards the mean on val, beside the above"
        both = {"model": per_subject, "corrected": metrics["corrected"]}
        sections[f"{what}, {unit}"] = table(both, columns)
    for name, found in by.items():
        heading = f"by {HEADINGS.get(name, name)}, per subject, {unit} (low, high: 95% interval of the MAE)"
        sections[heading] = table(found, counted, name) if found else ""
    sections["notes"] = NOTES
    errors, fit = ({key: per_subject[key] for key in keys} for keys in (("mae", "rmse"), ("r2", "slope")))
    LOG.info(f"{title}: per subject: {format_values(errors)} {unit}, {format_values(fit)}")
    for name, row in baselines.items():
        LOG.info(f"{title}: {name}: {format_values({'mae': row['subject_mae']})} {unit}")
    found = {"metrics": per_image | metrics, "baselines": baselines, "confidence": confidence}
    return verdict, found | {"warnings": warnings, "sections": sections}


def break_down(
    labels: np.ndarray, ids: np.ndarray, ages: np.ndarray, preds: np.ndarray, low: np.ndarray,
    high: np.ndarray, constant: float,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """{label: subjects, their MAE and its 95% interval (low, high; for three or more), the MAE of always
    answering `constant`, bias, sd (for two or more), coverage} of images (N,); label '' is left out."""
    found = {}
    for label in sorted(set(labels.tolist()) - {""}, key=by_number):
        mine = labels == label
        subjects, truth, predicted = subject_means(ids[mine], ages[mine], preds[mine])
        errors, first = predicted - truth, np.unique(ids[mine], return_index=True)[1]
        jackknife = GroupJackknife(subjects)
        bounds = jackknife.intervals(mae=jackknife.means(np.abs(errors))) if len(truth) > 2 else {}
        inside = (low[mine][first] <= truth) & (truth <= high[mine][first])
        found[label] = {
            "subjects": len(truth), "mae": float(np.abs(errors).mean()),
            **dict(zip(("low", "high"), bounds.get("mae", (None, None)), strict=True)),
            "baseline_mae": float(np.abs(constant - truth).mean()), "bias": float(errors.mean()),
            "sd": float(errors.std(ddof=1)) if len(errors) > 1 else None,
            "coverage": None if np.isnan(low).any() else float(inside.mean()),
        }  # fmt: skip
    return found


def by_number(text: str) -> tuple[float, str]:
    """Sort key: 'site 2' before 'site 10', '5 to 10' before '10 to 15'."""
    number = re.search(r"\d+(\.\d+)?", text)
    return float(number[0]) if number else 0.0, text


def describe_intervals(
    fitted: Mapping[str, Any] | None, metrics: Mapping[str, Any], split: str, unit: str
) -> str:
    """What low and high in the predictions promise, and their coverage on this split."""
    if not fitted or "coverage" not in metrics:
        people = fitted["people"] if fitted else 0
        return f"none: val has {people} subjects, at least {round(1 / (1 - LEVEL)) - 1} are needed"
    held = f"coverage {metrics['coverage']:.3f}, mean width {metrics['interval_width']:.3g} {unit}"
    own = " (on the people they were fitted on)" if split == "val" else ""
    return (
        f"low and high of {split}_predictions.csv contain the age of {fitted['level']:.0%} of new people "
        f"like those of val (split conformal, {fitted['people']} val subjects): {held}{own}"
    )
