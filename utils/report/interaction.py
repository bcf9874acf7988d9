"""The reports of stage 1, of stage 2, and of both together with social groups: end_to_end_report.txt and the
files of JRDB-Act's toolkit."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from utils.metrics import groups as social
from utils.metrics.calibration import calibrated, fit_temperature, log_odds, sigmoid
from utils.metrics.classification import reference_scores
from utils.metrics.interaction import NONE, best_threshold, end_to_end, every_pair, pair_probabilities
from utils.metrics.jrdb_act import keyframe_rows, rows_text, score_groups
from utils.metrics.verdict import Verdict
from utils.plotting.classification import plot_confusion
from utils.plotting.panorama import look_at_pair
from utils.report.classification import report_binary, report_multiclass
from utils.report.results import confusion_table, data_name, interval_lines, table, write_report
from utils.report.samples import report_samples
from utils.run.folder import write_text
from utils.run.log import LOG, format_values


def report_pairs(
    folder: Path, split: str, rows: dict[str, np.ndarray], data: Any, state: dict[str, Any]
) -> tuple[Verdict, dict[str, Any]]:
    """Stage 1: compare a split with distance alone and scikit-learn models; write figures and predictions.
    data: PairDatasets; rows: of the script's `evaluate`; state: the checkpoint."""
    dataset, logits = data.parts[split], log_odds(rows["logits"])[:, 1]
    val_geometry, val_labels = data.reference_pairs("val")
    geometry = np.concatenate([val_geometry, dataset.geometry])
    references = {"distance alone": -geometry[:, dataset.feature_names.index("distance_widths")]}
    fitted = reference_scores(*data.reference_pairs(), geometry, weights=data.references()["train_weights"])
    references |= {name: p[:, 1] for name, p in fitted.items()}
    references = {name: np.split(scores, [len(val_labels)]) for name, scores in references.items()}
    scores = sigmoid(calibrated(logits, **state["calibration"]))
    interacts = (scores >= state["threshold"]).astype(int)
    predicted = np.array(dataset.class_names)[interacts]
    columns = dataset.pair_columns() | {"score": scores, "prediction": predicted}
    p_label = abs(1 - dataset.labels - scores)
    report_samples(folder, split, state, columns, p_label, partial(look_at_pair, dataset))
    too_far = len(dataset.far_types)
    interacting = int(dataset.labels.sum()) + too_far
    recall = int(dataset.labels @ interacts) / interacting
    note = f"end-to-end recall {recall:.3f}: of {interacting} interacting pairs {too_far} stand "
    verdict, fields = report_binary(
        folder, split, state, dataset.labels, logits, dataset.class_names,
        trivial="distance alone", references=references, val_labels=val_labels,
        groups=dataset.sample_sequences, fallback=dataset.frames,
        notes={"notes": note + "beyond the distance limit and count as misses"},
    )  # fmt: skip
    fields["metrics"]["recall_end_to_end"] = recall
    return verdict, fields


def report_types(
    folder: Path, split: str, rows: dict[str, np.ndarray], data: Any, state: dict[str, Any]
) -> tuple[Verdict, dict[str, Any]]:
    """Stage 2: compare a split with guessing and scikit-learn models; write figures and predictions."""
    part, typed = data.parts[split], rows["types"] >= 0
    classes = np.array(part.class_names)
    p_interaction, p_types = pair_probabilities(rows["who"][typed], rows["logits"][typed], state)
    columns = dict(zip(classes, p_types.T, strict=True))
    columns |= {"p_interaction": p_interaction, "prediction": classes[p_types.argmax(axis=1)]}
    p_label = p_types[np.arange(len(part)), part.labels]
    report_samples(folder, split, state, part.pair_columns() | columns, p_label, partial(look_at_pair, part))
    train = data.reference_pairs()
    verdict, fields = report_multiclass(
        folder, split, state, part.labels, rows["logits"][typed], part.class_names,
        references=reference_scores(*train, part.geometry, len(classes)), train_labels=train[1],
        val_labels=data.reference_pairs("val")[1], groups=part.sample_sequences, fallback=part.frames,
        notes={"notes": "both stages together: end_to_end_report.txt"},
    )  # fmt: skip
    return verdict, fields | {"end_to_end": report_end_to_end(folder, split, data, rows, state)}


def choose_on_val(
    part: Any, rows: dict[str, np.ndarray], values: dict[str, Any]
) -> tuple[dict[str, float], float]:
    """{temperature of the types, threshold of both stages}, and the macro F1 of the six outcomes. rows: types
    (N,), -1 = none, and the logits of both stages, `who` and `logits`, of every pair in range. values: of
    stage 1."""
    typed = rows["types"] >= 0
    chosen: dict[str, Any] = fit_temperature(rows["types"][typed], rows["logits"][typed])
    p_interaction, p_types = pair_probabilities(rows["who"], rows["logits"], values | chosen)
    pairs = every_pair(part, p_interaction, p_types)
    chosen["threshold"] = best_threshold(pairs)
    return chosen, pairs.macro_f1(chosen["threshold"])


def report_end_to_end(
    folder: Path | None, split: str, data: Any, rows: dict[str, np.ndarray], state: dict[str, Any]
) -> dict[str, Any]:
    """Judge all pairs of every frame of a split, and the social groups; returns verdict and metrics.
    data: PairDatasets; rows: logits of both stages, `who` and `logits`, of every pair in range; state: the
    checkpoint. Writes a report, a confusion matrix and the toolkit's two files into `folder`, if given."""
    types, truncated = data.parts[split].class_names, state["args"]["max_batches"] > 0
    part = data.all_in_range(split)
    p_interaction, p_types = pair_probabilities(rows["who"], rows["logits"], state)
    pairs = every_pair(part, p_interaction, p_types)
    frequent, threshold = int(np.bincount(data.reference_pairs()[1]).argmax()), state["threshold"]
    of_stage1 = state["stage1_threshold"]
    verdict, figures = end_to_end(pairs, threshold, types, of_stage1, frequent, split, truncated)
    sequences = [name for names in data.split.values() for name in names]
    groups, files = report_groups(part, p_interaction, state, sequences)
    found = {"verdict": verdict.word, "verdict_reason": verdict.reason, **figures, **groups}
    if folder is None:
        return found
    title, names = f"both stages on {split}", [NONE, *types]
    outcomes = f"six outcomes of {int(pairs.weight.sum())} pairs, threshold {threshold:.4f} (chosen on val)"
    text = {
        outcomes: table(figures["per_outcome"], ["support", "precision", "recall", "f1", "ap"]),
        "macro F1": table({"both stages": figures, **figures["baselines"]}, ["macro_f1"]),
        "95% intervals": interval_lines(figures["confidence"]),
        "confusion matrix": confusion_table(figures["confusion"], names),
    }
    for how, values in groups["groups"].items():
        text[f"social groups, {how}: whole groups"] = table(values["whole"], [*values["whole"]["G1"]])
    if groups["jrdb_act"]:
        scores = {how: score["task_3"] for how, score in groups["jrdb_act"].items()}
        LOG.info(f"{title}: social groups, task 3: {format_values(scores)}")
        official = {how: score | score["by_size"] for how, score in groups["jrdb_act"].items()}
        heading = "social groups by the rules of JRDB-Act's toolkit: AP of people on keyframes"
        text[heading] = table(official, ["task_2", "task_3", *social.SIZE_BINS])
    write_report(folder / "end_to_end_report.txt", title, verdict, groups["warnings"], text)
    for name, lines in files.items():
        write_text(folder / name, lines)
    named = f"{title} of {data_name(state)}"
    plot_confusion(figures["confusion"], names, named, folder / "end_to_end_confusion.png")
    LOG.info(f"{title}: macro F1 {found['macro_f1']:.4g}; {verdict.word} ({verdict.reason})")
    return found


def report_groups(
    part: Any, p_interaction: np.ndarray, state: dict[str, Any], sequences: Sequence[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Metrics of the clusters, of connected components and of everybody alone; the toolkit's files of the
    clusters. The toolkit's own metrics are added if there are people of known groups in keyframes."""
    frames, pairs = part.people_and_pairs()
    threshold = state["stage1_threshold"]
    known = np.flatnonzero(part.social_groups != -1)
    if not len(known):
        return {"groups": {}, "jrdb_act": {}, "warnings": []}, {}
    ways = {
        "clusters": social.find_clusters(frames, pairs, p_interaction, threshold),
        "connected components": social.find_components(len(frames), pairs[p_interaction >= threshold]),
        "everybody alone": np.arange(len(frames)),
    }
    truth = keyframe_rows(part, part.social_groups, known, sequences, last=0)
    found, official, files = {}, {}, {}
    for how, groups in ways.items():
        scores = social.group_scores(groups, pairs, p_interaction)
        found[how] = {"whole": social.group_metrics(frames, groups, scores, part.social_groups)}
        if len(truth):
            rows = keyframe_rows(part, groups, known, sequences)
            official[how] = score_groups(truth, rows)
            files = files or {"det_group.txt": rows_text(rows), "gt_group.txt": rows_text(truth)}
    warnings, people = [], len(known)
    if people < len(frames):
        warnings.append(f"social groups: {people} of {len(frames)} people are judged, the others have none")
    if len(truth) < people / 20:  # of all frames, one in 15 is a keyframe
        few = f"only {len(truth)} of {people} people are on keyframes (15, 30, ... as JRDB counts)"
        warnings.append(f"JRDB-Act's figures: {few}")
    if official and official["clusters"]["task_3"] < official["everybody alone"]["task_3"]:
        warnings.append("social groups: everybody alone is better than the clusters (task 3)")
    return {"groups": found, "jrdb_act": official, "warnings": warnings}, files
