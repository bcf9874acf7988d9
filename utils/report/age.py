"""The report of an age regression: metrics per image and per subject, intervals, figures, the verdict."""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from scipy.special import erfc

from utils.metrics import regression
from utils.metrics.regression import LEVEL, correct_bias, intervals, regression_metrics, subject_means
from utils.metrics.verdict import Comparison, GroupJackknife, Verdict, divide, judge
from utils.plotting.age import explained, plot_bland_altman, plot_error_by_age, plot_scatter
from utils.report.results import figure_title, interval_lines, table
from utils.report.samples import report_samples
from utils.run.log import LOG, format_values

RIDGE = "ridge regression"  # on statistics of the greys: no learned features
ENTRY = "mean over their images of one age"
LEAST_SKILL = 0.01  # LEARNED with less gets a warning: nearly constant predictions can beat a constant too
HEADINGS = {"bmi": "body mass index (kg/m2)"}
NOTES = """Figures are not corrected for the regression towards the mean unless they say so. MAE, R2 and r \
depend on the range of ages; use the skill to compare cohorts."""


def measure(rows: dict[str, np.ndarray], criterion: torch.nn.Module) -> dict[str, float | None]:
    """Loss, and the metrics of utils/metrics/regression.py per image and per subject."""
    losses = criterion(*(torch.from_numpy(rows[name]).double() for name in ("preds", "ages")))
    _, *people = subject_means(rows["subject_ids"], rows["ages"], rows["preds"])
    return {"loss": float(losses.mean()), **measure_both((rows["ages"], rows["preds"]), people)}


def report_age(
    build_model: Callable, explain: Callable, folder: Path, split: str, rows: dict[str, np.ndarray],
    data: Any, state: Mapping[str, Any],
) -> tuple[Verdict, dict[str, Any]]:  # fmt: skip
    """Judge the predictions of one split; write SPLIT_predictions.csv and figures.

    build_model: the script's; explain: of models/age.py, for mistakes.png; rows: ages, preds and subject_ids
    (N,), one per image; data: the AgeDatasets; state: the checkpoint. The verdict compares the error per
    subject (`subject_means`) with the better of train mean and median, leaving out subjects.
    p_label in suspects.csv: the probability of an error at least this large if errors were normal (sd from
    their median absolute deviation). The reference is ridge regression on statistics of the greys. Returns
    the verdict and {metrics, baselines, confidence, references, warnings, sections}, the last for
    evaluation_report.txt."""
    part, unit, title = data.parts[split], data.unit, f"{state['script']} on {split}"
    images, people = tabulate(part, rows, state.get("intervals"))
    verdict, best, found = judge_ages(images, people, split, data, state)
    metrics, baselines, confidence = found["metrics"], found["baselines"], found["confidence"]
    by, warnings = metrics["by"], found["warnings"]
    if verdict.learned and metrics["skill"] < LEAST_SKILL:
        warnings.append(f"the gain over the {best} is real but of no use: skill {metrics['skill']:.2g}")

    def look(image: int) -> list[np.ndarray]:
        return explained(part.__getitems__([image]), partial(explain, model))

    model, _ = build_model(argparse.Namespace(**state["args"] | {"weights": "none"}))
    model.load_state_dict(state["model"])
    errors = images.error.to_numpy()
    spread = 1.4826 * float(np.median(np.abs(errors - np.median(errors)))) or 1.0
    report_samples(folder, split, state, dict(images), erfc(np.abs(errors) / spread / 2**0.5), look)
    above = figure_title(state, split)
    named = people.set_index("subject")
    plot_scatter(named, unit, above, folder / "scatter.png")
    plot_bland_altman(named, unit, above, folder / "bland_altman.png")
    plot_error_by_age(by["age"], unit, above, folder / "error_by_age.png")

    per_subject = {name: row_per_subject(row) for name, row in {"model": metrics, **baselines}.items()}
    columns = [key for key in per_subject["model"] if key != "mse"]  # RMSE says the same in the target's unit
    counted = ["subjects", "mae", "low", "high", "baseline_mae", "bias", "sd"]
    counted += ["coverage"] if "coverage" in metrics else []
    sections = {
        f"per subject: {people.subject.nunique()} subjects, {ENTRY}, {unit}": table(per_subject, columns),
        f"per image: {len(images)} images, {unit}": table({"model": metrics, **baselines}, columns),
        "95% intervals of the model, jackknife over subjects": interval_lines(confidence),
        f"skill = 1 - MAE / MAE of the {best}, per subject": f"{metrics['skill']:.3f}",
        "interval of each person": describe_intervals(state.get("intervals"), metrics, split, unit),
    }
    if "corrected" in metrics:
        what = "corrected for the regression towards the mean on val, beside the above"
        both = {"model": per_subject["model"], "corrected": metrics["corrected"]}
        sections[f"{what}, {unit}"] = table(both, columns)
    for name, parts in by.items():
        heading = f"by {HEADINGS.get(name, name)}, per subject, {unit} (low, high: 95% interval of the MAE)"
        sections[heading] = table(parts, counted, name) if parts else ""
    sections["notes"] = NOTES
    shown = ({key: per_subject["model"][key] for key in keys} for keys in (("mae", "rmse"), ("r2", "slope")))
    mae_rmse, r2_slope = map(format_values, shown)
    LOG.info(f"{title}: per subject: {mae_rmse} {unit}, {r2_slope}")
    for name, row in baselines.items():
        LOG.info(f"{title}: {name}: {format_values({'mae': row['subject_mae']})} {unit}")
    return verdict, found | {"sections": sections}


def tabulate(
    part: Any, rows: Mapping[str, np.ndarray], fitted: Mapping[str, Any] | None
) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """(a row per image, with the columns of SPLIT_predictions.csv; a row per age of a subject: the mean
    prediction of its images, and the interval of the age, low and high)."""
    ages, preds = rows["ages"].astype(float), rows["preds"].astype(float)
    found = {"file": part.files, "subject": np.array(part.subjects)[rows["subject_ids"]], "age": ages}
    images = pandas.DataFrame(found | {"prediction": preds, "error": preds - ages})
    people = means_of(images)
    people["low"], people["high"] = intervals(fitted, people.prediction)
    own = people.rename(columns={"prediction": "subject_prediction"})
    return images.merge(own, "left").assign(**part.groups), people


def judge_ages(
    images: pandas.DataFrame, people: pandas.DataFrame, split: str, data: Any, state: Mapping[str, Any]
) -> tuple[Verdict, str, dict[str, dict[str, Any]]]:
    """(the verdict, the better of the constant predictions, {metrics, baselines, confidence, references,
    warnings})."""
    ages, preds, low, high = people[["age", "prediction", "low", "high"]].to_numpy().T
    fitted, truncated = state.get("intervals"), state["args"]["max_batches"] > 0
    metrics, baselines = measure_both((images.age, images.prediction), (ages, preds)), {}
    known = data.references()
    constants = regression.trivial_predictions(known["train_labels"])
    for name, guess in constants.items():
        baselines[name] = measure_both(*((true, np.full(len(true), guess)) for true in (images.age, ages)))
    best = min(baselines, key=lambda name: baselines[name]["subject_mae"])
    constant = constants[best]
    metrics["skill"] = 1 - metrics["subject_mae"] / baselines[best]["subject_mae"]
    band, width = regression.age_bands(images.age)
    bands = [f"{k * width:g} to {(k + 1) * width:g}" for k in band]
    labels = {"age": bands, **data.parts[split].groups}
    metrics["by"] = {name: break_down(images, label, constant) for name, label in labels.items()}

    # Whole subjects are left out: more images or ages of each cannot narrow the interval.
    by_subject, by_image = GroupJackknife(people.subject), GroupJackknife(images.subject)
    subject_mae = by_subject.means(np.abs(preds - ages))
    floor_mae = by_subject.means(np.abs(constant - ages))
    inputs = known["train_inputs"], known["train_ages"], data.parts[split].statistics()
    ridge = images.assign(prediction=regression.ridge_predictions(*inputs))
    theirs, title = means_of(ridge).prediction.to_numpy(), f"MAE per subject ({data.unit})"
    baselines[RIDGE] = measure_both((images.age, ridge.prediction), (ages, theirs))
    ridge_mae = by_subject.means(np.abs(theirs - ages))
    reference = Comparison.of(title, subject_mae, ridge_mae, RIDGE, by_subject, False)
    how = {"unit": "subjects", "higher_is_better": False, "truncated": truncated, "reference": reference}
    verdict = judge(title, subject_mae, floor_mae, best, split, by_subject, **how)
    confidence = by_image.intervals(mae=by_image.means(np.abs(images.error.to_numpy())))
    skill = 1 - divide(subject_mae, floor_mae)
    confidence |= by_subject.intervals(subject_mae=subject_mae, skill=skill)
    if not np.isnan(low).any():
        inside = (low <= ages) & (ages <= high)
        metrics |= {"coverage": float(inside.mean()), "interval_width": float((high - low).mean())}
        confidence |= by_subject.intervals(coverage=by_subject.means(inside))
    corrected = correct_bias(fitted, preds)
    if corrected is not None:
        metrics["corrected"] = regression_metrics(ages, corrected)
    found = {"metrics": metrics, "baselines": baselines, "confidence": confidence}
    found |= {"references": asdict(reference), "warnings": reference.warnings()}
    return verdict, best, found


def measure_both(images: Sequence[np.ndarray], people: Sequence[np.ndarray]) -> dict[str, Any]:
    """The metrics of ages and predictions per image, and with subject_ before their names per subject."""
    found = {f"subject_{key}": value for key, value in regression_metrics(*people).items()}
    return regression_metrics(*images) | found


def row_per_subject(measured: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics per subject, under their own names."""
    return {k.removeprefix("subject_"): v for k, v in measured.items() if k.startswith("subject_")}


def means_of(images: pandas.DataFrame) -> pandas.DataFrame:
    """subject, age and mean prediction of the images of each subject at each age."""
    means = subject_means(images.subject, images.age, images.prediction)
    return pandas.DataFrame(dict(zip(("subject", "age", "prediction"), means, strict=True)))


def break_down(images: pandas.DataFrame, labels: Sequence[str], constant: float) -> dict[str, dict[str, Any]]:
    """{label: subjects, their MAE and its 95% interval (low, high; for three or more), the MAE of always
    answering `constant`, bias, sd (for two or more), coverage} of images (N,); label '' is left out."""
    found, labels = {}, np.array(labels)
    for label in sorted(set(labels.tolist()) - {""}, key=by_number):
        mine = images[labels == label]
        bounds = mine.drop_duplicates(["subject", "age"])[["subject", "age", "low", "high"]]
        people = means_of(mine).merge(bounds)
        errors, jackknife = (people.prediction - people.age).to_numpy(), GroupJackknife(people.subject)
        bounds = jackknife.intervals(mae=jackknife.means(np.abs(errors))) if jackknife.total > 2 else {}
        low, high = bounds.get("mae", (None, None))
        covered = people.age.between(people.low, people.high).mean()
        found[label] = {
            "subjects": jackknife.total, "mae": float(np.abs(errors).mean()), "low": low, "high": high,
            "baseline_mae": float(np.abs(constant - people.age).mean()), "bias": float(errors.mean()),
            "sd": float(errors.std(ddof=1)) if len(people) > 1 else None,
            "coverage": None if images.low.isna().any() else float(covered),
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
