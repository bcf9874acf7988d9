"""The report of an age regression: figures per image and per subject, intervals, pictures, the verdict."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import erfc

from utils.metrics.regression import error_bands, regression_metrics, subject_means, trivial_predictions
from utils.metrics.verdict import GroupJackknife, Verdict, divide, judge
from utils.plotting.age import plot_bland_altman, plot_error_by_age, plot_scatter
from utils.report.results import interval_lines, state_warnings, table, write_report
from utils.report.samples import Look, report_samples
from utils.run.log import LOG, format_values


def report_age(
    folder: Path, split: str, state: Mapping[str, Any], rows: dict[str, np.ndarray], files: list[str],
    subjects: list[str], train_ages: np.ndarray, *, unit: str, truncated: bool, look: Look,
    groups: Sequence[str] = (),
) -> tuple[Verdict, dict[str, Any]]:  # fmt: skip
    """Judge the predictions of one split and write evaluation_report.txt, SPLIT_predictions.csv and the
    figures.

    state: the checkpoint; rows: ages, preds and subject_ids (N,), one per image; files: their names;
    subjects: the names the ids stand for; groups: the site or device of each image, if any. The verdict
    compares the error per subject (mean over its images) with the better of the train mean and median,
    leaving out subjects. Returns it and {metrics, baselines, confidence, warnings}.

    look: pictures of an image. suspects.csv: how rare an error of that size is, were errors normal (sd from
    their median absolute deviation).
    """
    title = f"{state['script']} on {split}"
    ages, preds, ids = rows["ages"].astype(float), rows["preds"].astype(float), rows["subject_ids"]
    numbers, subject_ages, subject_preds = subject_means(ids, ages, preds)
    images, people = regression_metrics(ages, preds), regression_metrics(subject_ages, subject_preds)
    baselines, trivial = {}, {}
    for name, guess in trivial_predictions(train_ages, len(ages)).items():
        trivial[name] = guess[: len(subject_ages)]
        found = regression_metrics(subject_ages, trivial[name])
        baselines[name] = regression_metrics(ages, guess) | {f"subject_{k}": v for k, v in found.items()}
    best = min(baselines, key=lambda name: baselines[name]["subject_mae"])
    floor = np.abs(trivial[best] - subject_ages)

    # One row per subject: an interval over them can not be narrowed by taking more images of each.
    by_subject, by_image = GroupJackknife(numbers), GroupJackknife(ids)
    subject_mae = by_subject.means(np.abs(subject_preds - subject_ages))
    floor_mae = by_subject.means(floor)
    verdict = judge(
        f"MAE per subject ({unit})", subject_mae, floor_mae, best, split, by_subject, unit="subjects",
        higher_is_better=False, truncated=truncated,
    )  # fmt: skip
    skill = 1 - divide(subject_mae, floor_mae)
    confidence = by_image.intervals(mae=by_image.means(np.abs(preds - ages)))
    confidence |= by_subject.intervals(subject_mae=subject_mae, skill=skill)
    bands, others = (error_bands(subject_ages, guess) for guess in (subject_preds, trivial[best]))
    worse = [
        f"{b['from']:g} to {b['to']:g}" for b, o in zip(bands, others, strict=True) if b["mae"] > o["mae"]
    ]
    warnings = state_warnings(state)
    if worse:
        warnings.append(f"worse than the {best}: at ages {', '.join(worse)} {unit}")
    metrics: dict[str, Any] = {f"subject_{key}": value for key, value in people.items()}
    metrics |= {"skill": 1 - people["mae"] / baselines[best]["subject_mae"], "bias_by_age": bands}

    written = {
        "file": np.array(files),
        "subject": np.array([subjects[k] for k in ids]),
        "age": ages,
        "prediction": preds,
        "error": preds - ages,
        "subject_prediction": subject_preds[np.searchsorted(numbers, ids)],
    }
    by_group = error_by_group(groups, rows, train_ages) if any(groups) else {}
    if by_group:
        written["group"], metrics["by_group"] = np.array(groups), by_group
    spread = 1.4826 * float(np.median(np.abs(preds - ages - np.median(preds - ages)))) or 1.0
    report_samples(folder, split, state, written, erfc(np.abs(preds - ages) / spread / 2**0.5), look)
    people_names = [subjects[k] for k in numbers]
    plot_scatter(subject_ages, subject_preds, people_names, unit, title, folder / "scatter.png")
    plot_bland_altman(subject_ages, subject_preds, people_names, unit, title, folder / "bland_altman.png")
    plot_error_by_age(subject_ages, subject_preds, trivial[best], unit, title, folder / "error_by_age.png")

    columns = [key for key in images if key != "mse"]  # RMSE says the same in the unit of the target
    floors = {name: {key: row[f"subject_{key}"] for key in columns} for name, row in baselines.items()}
    by_band = {f"{b['from']:g} to {b['to']:g}": b for b in bands}
    sections = {
        f"per subject: {len(numbers)} subjects, mean over their images, {unit}": table(
            {"model": people, **floors}, columns
        ),
        f"per image: {len(ages)} images, {unit}": table({"model": images, **baselines}, columns),
        "95% intervals of the model, jackknife over subjects": interval_lines(confidence),
        f"skill = 1 - MAE / MAE of the {best}, per subject": f"{metrics['skill']:.3f}",
        f"error by age, per subject, {unit}": table(by_band, ("count", "bias", "mae", "sd"), "age"),
        f"by group, per subject, {unit}": by_group
        and table(by_group, ("subjects", "mae", "baseline_mae", "bias")),
        "notes": "No figure is corrected for the regression towards the mean. MAE, R2 and r depend on the "
        "range of ages; compare them between cohorts through the skill.",
    }
    write_report(folder / "evaluation_report.txt", title, verdict, warnings, sections)
    shown = ("mae", "rmse", "r2", "slope")
    LOG.info(f"{title}: per subject: {format_values({key: people[key] for key in shown})} {unit}")
    for name, row in baselines.items():
        LOG.info(f"{title}: {name}: {format_values({'mae': row['subject_mae']})} {unit}")
    return verdict, {
        "metrics": images | metrics, "baselines": baselines, "confidence": confidence, "warnings": warnings
    }  # fmt: skip


def error_by_group(
    groups: Sequence[str], rows: dict[str, np.ndarray], train_ages: np.ndarray
) -> dict[str, dict[str, float]]:
    """{group: subjects, MAE and bias over them, MAE of the better of train mean and median}."""
    found = {}
    for group in sorted(set(groups)):
        mine = np.array(groups) == group
        ids, ages, preds = (rows[key][mine] for key in ("subject_ids", "ages", "preds"))
        _, ages, preds = subject_means(ids, ages.astype(float), preds.astype(float))
        guesses = trivial_predictions(train_ages, len(ages)).values()
        found[group] = {
            "subjects": len(ages),
            "mae": float(np.abs(preds - ages).mean()),
            "baseline_mae": min(float(np.abs(guess - ages).mean()) for guess in guesses),
            "bias": float((preds - ages).mean()),
        }
    return found
