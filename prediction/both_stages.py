"""Stage 1 and stage 2 judged together: six outcomes over all pairs of every frame, and their groups."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.jrdb.dataset import PairDatasets
from datasets.jrdb.labels import INTERACTION_CLASSES
from prediction.interactions import probabilities
from prediction.trained import Trained
from utils.metrics.interaction import NONE, end_to_end_metrics, find_groups, group_metrics, six_outcomes
from utils.plotting.classification import plot_confusion
from utils.report.results import confusion_table, table
from utils.run.folder import write_text
from utils.training.device import move


@torch.no_grad()
def judge_both_stages(trained: Trained, data: PairDatasets, split: str, folder: Path) -> dict[str, Any]:
    """Metrics over the split, per sequence, and of the social groups.

    Writes end_to_end_report.txt and end_to_end_confusion.png.
    """
    part, model, threshold = data.with_task(split, "any"), trained.model, trained.state["threshold"]
    p_interaction, p_types = np.empty(len(part)), np.empty((len(part), len(INTERACTION_CLASSES)))
    for batch in trained.batches_of(part):
        rows, stages = batch["indices"], model.both_stages(move(batch, trained.device))
        p_interaction[rows], p_types[rows] = probabilities(trained, *stages)
    outcomes, scores = six_outcomes(p_interaction, p_types, threshold)
    # An interacting pair without a type has no true outcome, nor has an ambiguous one; groups need them all.
    typed = ((part.labels == 0) & ~part.ambiguous) | (part.types >= 0)
    people = np.bincount(part.people_frames, minlength=len(part.frame_keys))
    pairs = people * (people - 1) // 2  # of each frame
    seen = np.concatenate([part.frames[~part.ambiguous], part.out_of_range_frames, part.ambiguous_frames])
    far_others = pairs - np.bincount(seen, minlength=len(people))  # beyond the limit, not annotated

    def judged(frames: np.ndarray) -> dict[str, Any]:
        """Metrics over the frames marked in (F,) bool."""
        mine, beyond = typed & frames[part.frames], frames[part.out_of_range_frames]
        far_types = part.out_of_range_types[beyond]
        return end_to_end_metrics(
            part.types[mine] + 1, outcomes[mine], scores[mine], far_types[far_types >= 0],
            int(far_others[frames].sum()), INTERACTION_CLASSES,
        )  # fmt: skip

    whole = judged(np.ones(len(people), bool))
    sequences = {name: judged(part.frame_sequences == k) for k, name in enumerate(part.sequences)}
    both = np.stack([part.left, part.right], axis=1)
    predicted, group_scores = find_groups(len(part.boxes), both, p_interaction, threshold)
    groups = group_metrics(part.people_frames, predicted, group_scores, part.social_groups)
    names = [NONE, *INTERACTION_CLASSES]
    sections = {
        f"six outcomes over {int(pairs.sum())} pairs, threshold {threshold:.4f}": table(
            whole["per_outcome"], ["support", "precision", "recall", "f1", "ap"]
        )
        + f"\nmacro F1 {whole['macro_f1']:.4f}, accuracy {whole['accuracy']:.4f}",
        "confusion matrix": confusion_table(whole["confusion"], names),
        "by sequence": table(sequences, ["macro_f1", "accuracy"]),
        "social groups, AP by size": table(groups, list(groups["G1"])),
    }
    text = "\n\n".join(f"{title}\n{'-' * len(title)}\n{body}" for title, body in sections.items())
    write_text(folder / "end_to_end_report.txt", text + "\n")
    plot_confusion(whole["confusion"], names, f"both stages on {split}", folder / "end_to_end_confusion.png")
    print(text)
    return whole | {"by_sequence": sequences, "social_groups": groups}
