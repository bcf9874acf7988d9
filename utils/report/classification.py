"""The reports of the classifiers: metrics beside references, intervals, calibration, figures, the verdict."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from utils.metrics import calibration as scales
from utils.metrics import classification as figures
from utils.metrics.calibration import calibrated, sigmoid
from utils.metrics.verdict import Comparison, GroupJackknife, Verdict, judge
from utils.plotting import classification as plotting
from utils.report import results
from utils.run.log import LOG, format_values
from utils.tasks import TASKS


def report_binary(
    folder: Path, split: str, state: Mapping[str, Any], labels: np.ndarray, logits: np.ndarray,
    classes: Sequence[str], *, trivial: str, references: Mapping[str, tuple[np.ndarray, np.ndarray]],
    val_labels: np.ndarray, groups: np.ndarray, fallback: np.ndarray, notes: Mapping[str, str],
    fit: Callable[..., dict[str, float]] = scales.fit_platt, otherwise: str = "",
) -> tuple[Verdict, dict[str, Any]]:  # fmt: skip
    """Judge a two-class model on N samples beside reference scorers on the same samples.

    state: the checkpoint, whose threshold and calibration (by `fit` on val) are used; logits (N,):
    the model's outputs; references: {name: scores on val and on these samples}, whose thresholds are chosen
    on val, like the model's. The verdict compares AUROC with the reference named `trivial`, leaving out one
    of `groups` (N,) at a time; AP is compared with the best reference. otherwise: advice to add if all
    samples are of one class. Writes figures; returns the verdict and {metrics, baselines, confidence,
    warnings, references, sections}, the last for evaluation_report.txt."""
    unit, truncated = TASKS[state["script"]]["groups"], state["args"]["max_batches"] > 0
    threshold, odds = state["threshold"], calibrated(logits, **state["calibration"])
    scores = sigmoid(odds)
    preds = (scores >= threshold).astype(int)
    most = np.full(len(labels), int(labels.mean() >= 0.5))
    baselines = {"majority class": figures.binary_metrics(labels, most, most)}
    for name, (on_val, here) in references.items():
        preds_of = here >= figures.choose_threshold(val_labels, on_val)
        baselines[name] = figures.binary_metrics(labels, here, preds_of)

    jackknife = GroupJackknife(groups, labels, fallback)
    ap, auroc = jackknife.ap(labels, odds), jackknife.auroc(labels, odds)
    comparison = None
    if others := [name for name in references if name != "chance" and baselines[name]["ap"]]:
        strongest = max(others, key=lambda name: baselines[name]["ap"])
        theirs = jackknife.ap(labels, references[strongest][1])
        comparison = Comparison.of("AP", ap, theirs, strongest, jackknife)
    theirs = jackknife.auroc(labels, references[trivial][1])
    how = {"unit": unit, "truncated": truncated, "reference": comparison}
    verdict = judge("AUROC", auroc, theirs, trivial, split, jackknife, **how)
    if len(np.unique(labels)) == 1 and not truncated:
        alike = f"all {len(labels)} samples are of class '{classes[labels[0]]}'"
        verdict = replace(verdict, word="NOT JUDGED", reason=f"{alike}: nothing can be ranked{otherwise}")

    metrics = figures.binary_metrics(labels, odds, preds)
    columns = list(metrics)
    crossed = scales.cross_fitted(labels, logits, groups, fit, calibrated) if split == "val" else None
    judged, probable, text = probabilities(labels, scores, crossed, val_labels.mean(), split)
    warnings, alarms = results.scale_warnings(state), int(preds.sum())
    if min(alarms, len(labels) - alarms) < 0.005 * len(labels):
        reach = f"{alarms} of {len(labels)} samples of {split} reach {threshold:.3f}"
        warnings.append(f"threshold at the edge of the scores: {reach}")

    counts, named = figures.confusion(labels, preds, 2), results.figure_title(state, split)
    place = folder / "probability_distributions.png"
    plotting.plot_confusion(counts, classes, named, folder / "confusion_matrix.png")
    plotting.plot_distributions(labels, scores, classes, named, place, threshold)
    plotting.plot_reliability(labels, judged, classes[1], named, folder / "reliability.png")
    confidence = jackknife.intervals(ap=ap, auroc=auroc, f1=jackknife.f1(labels, preds))
    heading = f"{len(labels)} samples, {int(labels.sum())} of class '{classes[1]}'"
    matrix = f"confusion matrix at threshold {threshold:.4f}, chosen on val"
    sections = {
        heading: results.table({"model": metrics, **baselines}, columns),
        interval_heading(jackknife, unit): results.interval_lines(confidence),
        matrix: results.confusion_table(counts, classes),
        "probabilities": text,
    }
    found = {"metrics": metrics | probable, "baselines": baselines, "confidence": confidence}
    shown = "ap", "auroc", "f1"
    return conclude(split, state, verdict, warnings, comparison, sections | dict(notes), found, shown)


def report_multiclass(
    folder: Path, split: str, state: Mapping[str, Any], labels: np.ndarray, logits: np.ndarray,
    classes: Sequence[str], *, references: Mapping[str, np.ndarray], train_labels: np.ndarray,
    val_labels: np.ndarray, groups: np.ndarray, fallback: np.ndarray, notes: Mapping[str, str],
) -> tuple[Verdict, dict[str, Any]]:  # fmt: skip
    """Judge a K-class model on N samples, logits (N, K), beside reference scorers (N, K) and guessing.
    state: the checkpoint, whose temperature is used. The verdict compares macro F1 with the best
    guess: train's majority class, uniform, or by train's shares. Otherwise as report_binary."""
    unit, truncated = TASKS[state["script"]]["groups"], state["args"]["max_batches"] > 0
    count = len(classes)
    guesses = figures.trivial_guesses(train_labels, count)
    preds, jackknife = logits.argmax(axis=1), GroupJackknife(groups, fallback=fallback)
    model = jackknife.macro_f1(labels, np.eye(count)[preds])
    trivial = {name: jackknife.macro_f1(labels, np.tile(p, (len(labels), 1))) for name, p in guesses.items()}
    answers = {name: p.argmax(axis=1) for name, p in references.items()}
    others = {name: jackknife.macro_f1(labels, np.eye(count)[k]) for name, k in answers.items()}
    guess, strongest = (max(rows, key=lambda name: rows[name][0]) for rows in (trivial, others))
    comparison = Comparison.of("macro F1", model, others[strongest], strongest, jackknife)
    how = {"unit": unit, "truncated": truncated, "reference": comparison}
    verdict = judge("macro F1", model, trivial[guess], guess, split, jackknife, **how)

    odds = scales.log_odds(logits, state["temperature"])
    scores, shares = sigmoid(odds), np.bincount(val_labels, minlength=count) / len(val_labels)
    metrics = figures.multiclass_metrics(labels, odds, classes)
    columns = [key for key in metrics if key != "per_class"]
    crossed = None
    if split == "val":
        crossed = scales.cross_fitted(labels, logits, groups, scales.fit_temperature, scales.log_odds)
    judged, probable, text = probabilities(labels, scores, crossed, shares, split)
    present, baselines = np.unique(labels), {}
    for name, p in guesses.items():  # expected values of a random guess
        right = {"balanced_accuracy": float(p[present].mean()), "accuracy": float(p[labels].mean())}
        baselines[name] = {"macro_f1": float(trivial[name][0])} | right
    baselines |= {name: figures.multiclass_metrics(labels, p, classes) for name, p in references.items()}

    counts, what = figures.confusion(labels, preds, count), "the predicted type is right"
    named, place = results.figure_title(state, split), folder / "probability_distributions.png"
    plotting.plot_confusion(counts, classes, named, folder / "confusion_matrix.png")
    plotting.plot_distributions(labels, scores, classes, named, place)
    plotting.plot_reliability(labels, judged, what, named, folder / "reliability.png")
    confidence = jackknife.intervals(macro_f1=model, accuracy=jackknife.means(preds == labels))
    sections = {
        f"{len(labels)} samples": results.table({"model": metrics, **baselines}, columns),
        interval_heading(jackknife, unit): results.interval_lines(confidence),
        "per class": results.table(metrics["per_class"], ["support", "precision", "recall", "f1", "ap"]),
        "confusion matrix": results.confusion_table(counts, classes),
        "probabilities": text,
    }
    found = {"metrics": metrics | probable, "baselines": baselines, "confidence": confidence}
    warnings, shown = results.scale_warnings(state), ["macro_f1"]
    return conclude(split, state, verdict, warnings, comparison, sections | dict(notes), found, shown)


def conclude(
    split: str, state: Mapping[str, Any], verdict: Verdict, warnings: list[str],
    comparison: Comparison | None, sections: Mapping[str, str], found: dict[str, Any], shown: Sequence[str],
) -> tuple[Verdict, dict[str, Any]]:  # fmt: skip
    """Warn of a better reference, log the metrics `shown`; completes `found`."""
    title = f"{state['script']} on {split}"
    warnings += comparison.warnings() if comparison else []
    for name, values in {"model": found["metrics"], **found["baselines"]}.items():
        if any(values[key] is not None for key in shown):  # all are undefined if there is only one class
            LOG.info(f"{title}: {name}: {format_values({key: values[key] for key in shown})}")
    found |= {"warnings": warnings, "references": comparison and asdict(comparison), "sections": sections}
    return verdict, found


def interval_heading(jackknife: GroupJackknife, unit: str) -> str:
    return f"95% intervals of the model, jackknife over {'frames' if jackknife.over_frames else unit}"


def probabilities(
    labels: np.ndarray, scores: np.ndarray, crossed: np.ndarray | None, prior: Any, split: str
) -> tuple[np.ndarray, dict[str, float], str]:
    """The scores to judge (on val `crossed`), their calibration error and Brier scores, also as text."""
    how = ""
    if split == "val":
        how = "; on the split of the fit: optimistic"
        if crossed is not None:
            scores, how = crossed, "; each group by a scale fitted on the others"
    found = scales.probability_figures(labels, scores, prior)
    error, brier, prior = (f"{found[key]:.4f}" for key in ("calibration_error", "brier", "brier_prior"))
    better = "the same as" if brier == prior else "better than" if brier < prior else "worse than"
    shares = f"{better} val's shares of the classes ({prior})"
    return scores, found, f"calibration error {error} (15 bins){how}\nBrier score {brier}, {shares}"
