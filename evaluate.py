"""Re-evaluate a run on one of its splits, or on other data of the same task, with the script's own code.

    python evaluate.py --run checkpoints/stage2_experiment_... --split test
    python evaluate.py --run RUN --checkpoint RUN/last.pth --split val
    python evaluate.py --run RUN --data_path OTHER_DATA

Writes evaluation_report.txt, results.json and the figures into RUN/evaluation_SPLIT_TIMESTAMP/. For a stage 2
run the two stages are also judged together: six outcomes over all pairs of every frame, and the social groups
they form.
"""

import argparse
import importlib
from pathlib import Path
from typing import Any

from utils import arguments
from utils.errors import CommandError, run_script

MODULES = {  # nothing that a file names is imported: the five names are fixed
    "train_stage1.py": "train_stage1",
    "train_stage2.py": "train_stage2",
}
BEST = {"train_stage1.py": "best_f1.pth", "train_stage2.py": "best_f1.pth"}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Flags of evaluate.py."""
    parser = arguments.ScriptParser("evaluate.py", __doc__)
    parser.add_argument("--run", required=True, help="run folder")
    parser.add_argument("--checkpoint", help="another checkpoint of that run; default: the best one")
    parser.add_argument("--split", choices=["train", "val", "test"], default="test", help="which part")
    parser.add_argument("--data_path", help="other data of the same task; default: that of the run")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    return parser.parse_args(parser.typed(argv))


if __name__ == "__main__":
    ARGS = parse_args()  # before the heavy imports

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from datasets.jrdb import INTERACTION_CLASSES
from datasets.pair_dataset import PairDatasets
from utils import distributed
from utils.checkpoint import find_checkpoint, load_checkpoint
from utils.device import choose_device, move
from utils.end_to_end import NONE, end_to_end_metrics, six_outcomes
from utils.learning import Verdict
from utils.log import start_log
from utils.plotting import plot_confusion
from utils.report import confusion_table, table, write_results
from utils.run import create_run_folder, read_json, write_text
from utils.social_groups import find_groups, group_metrics


def recorded_args(run: Path, data_path: str | None) -> tuple[str, argparse.Namespace]:
    """The script's name and the flags of a run, on other data when `data_path` is given."""
    config = read_json(run / "config.json")
    script = config.get("script_name")
    if script not in MODULES:
        raise CommandError(f"{run / 'config.json'} names the script {script!r}; known: {', '.join(MODULES)}")
    recorded = dict(config["args"])
    if data_path:
        recorded["data_path"] = data_path
    return script, argparse.Namespace(**recorded)


def evaluate_split(
    script: Any, model: nn.Module, state: dict[str, Any], args: Any, data: Any, split: str, folder: Path
) -> tuple[Verdict, dict[str, Any], dict[str, np.ndarray]]:
    """The script's own evaluate and report on one split; returns the verdict, the report's fields and the
    rows."""
    rows = script.evaluate(model, loader_of(data.parts()[split], args.device), args.device, amp=args.amp)
    verdict, fields = script.report(folder, split, rows, data, state, truncated=args.max_batches > 0)
    return verdict, fields, rows


def loader_of(part: Any, device: torch.device) -> DataLoader:
    """Batches of whole frames, as in training's evaluation."""
    alone = distributed.Processes(0, 1, device)
    return distributed.make_loader(part, distributed.evaluation_batches(part.frames, 256, alone), 0, device)


@torch.no_grad()
def judge_both_stages(
    model: nn.Module, state: dict[str, Any], args: Any, data: PairDatasets, split: str, folder: Path
) -> dict[str, Any]:
    """Six outcomes over all pairs of every frame, per split and per sequence, and the social groups they
    form.

    Writes end_to_end_report.txt and end_to_end_confusion.png.
    """
    part = data.with_task(split, "interaction")
    model.eval()
    p_interaction, p_types = np.empty(len(part)), np.empty((len(part), len(INTERACTION_CLASSES)))
    for batch in loader_of(part, args.device):
        features = model.pair_features(move(batch, args.device))
        p_interaction[batch["indices"]] = model.stage1_head(features).double().softmax(dim=1)[:, 1].cpu()
        p_types[batch["indices"]] = model.stage2_head(features).double().softmax(dim=1).cpu()
    outcomes, scores = six_outcomes(p_interaction, p_types, state["threshold"])
    typed = (part.labels == 0) | (part.types >= 0)  # an interacting pair without a type has no true outcome
    people = np.bincount(part.people_frames, minlength=len(part.frame_keys))
    pairs = people * (people - 1) // 2  # of each frame
    seen = np.concatenate([part.frames, part.out_of_range_frames, part.ambiguous_frames])
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
    predicted, group_scores = find_groups(len(part.boxes), both, p_interaction, state["threshold"])
    groups = group_metrics(part.people_frames, predicted, group_scores, part.social_groups)
    names = [NONE, *INTERACTION_CLASSES]
    sections = {
        f"six outcomes over {int(pairs.sum())} pairs, threshold {state['threshold']:.4f}": table(
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


def main(args: argparse.Namespace) -> None:
    run = Path(args.run)
    script_name, recorded = recorded_args(run, args.data_path)
    script = importlib.import_module(MODULES[script_name])
    state = load_checkpoint(find_checkpoint(args.checkpoint or run, BEST[script_name]), script_name)
    recorded.device = choose_device(args.device)
    data = script.build_datasets(recorded)
    if args.split not in data.parts():
        raise CommandError(f"the data has no {args.split} split; it has {', '.join(data.parts())}")
    model, _ = script.build_model(recorded)
    model.load_state_dict(state["model"])
    model.to(recorded.device)

    folder = create_run_folder(run, f"evaluation_{args.split}", kind="")
    start_log(folder / "evaluate.log")
    verdict, fields, _ = evaluate_split(script, model, state, recorded, data, args.split, folder)
    if script_name == "train_stage2.py":
        fields["end_to_end"] = judge_both_stages(model, state, recorded, data, args.split, folder)
    write_results(folder, f"{script.NAME}, {args.split}", verdict, **fields, synthetic=data.synthetic)


if __name__ == "__main__":
    run_script(lambda: main(ARGS))
