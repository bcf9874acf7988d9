"""Re-evaluate a run on one of its splits, or on other data of the same task, with the script's own code.

    python evaluate.py --run checkpoints/stage2_experiment_... --split test
    python evaluate.py --run RUN --checkpoint RUN/last.pth --split val
    python evaluate.py --run RUN --data_path OTHER_DATA                        JRDB or AnoVox
    python evaluate.py --run RUN --image_dir OTHER/Images --excel_path OTHER.xlsx          ages
    python evaluate.py --run ANOMALY_RUN --corrupt all                         what failing sensors cost
    python evaluate.py --run ANOMALY_RUN --data_path RECORDINGS --paste 200    without a labelled anomaly

Writes evaluation_report.txt, results.json and the figures into RUN/evaluation_SPLIT_TIMESTAMP/. For a stage 2
run the two stages are also judged together: six outcomes over all pairs of every frame, and the social groups
they form. Other data is split by the rules of the run, its own split.json first.
"""

import argparse
from pathlib import Path
from typing import Any

from utils.run import arguments
from utils.run.errors import CommandError
from utils.run.script import run_script

CORRUPTIONS = ("camera_black", "camera_blur", "camera_noise", "lidar_dropout", "lidar_missing")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Flags of evaluate.py."""
    parser = arguments.ScriptParser("evaluate.py", __doc__)
    add = parser.add_argument
    # fmt: off
    add("--run", required=True, help="run folder")
    add("--checkpoint", help="another checkpoint of that run; default: the best one")
    add("--split", choices=["train", "val", "test"], default="test", help="which part")
    add("--data_path", help="other data of the same task; default: that of the run")
    add("--image_dir", help="the same for ages: other images")
    add("--excel_path", help="their table; default: characteristics.xlsx two folders up")
    add("--exclude", nargs="+", metavar="KIND", help="ages: problems of other data to leave out")
    add("--corrupt", choices=[*CORRUPTIONS, "all"], nargs="+", default=[],
        help="anomaly runs: judge the same frames with failing sensors too")
    add("--paste", type=arguments.positive_int, metavar="N",
        help="anomaly runs: only paste N things into normal frames, and count which are found")
    add("--cache_limit_gb", type=arguments.positive_float, help="largest image cache; default: the run's")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--debug", action=argparse.BooleanOptionalAction, default=False, help="show every traceback")
    # fmt: on
    return parser.parse_args(parser.typed(argv))


if __name__ == "__main__":
    ARGS = parse_args()  # before the heavy imports

from prediction.degradation import degradation_table
from prediction.pasting import judge_pastes
from prediction.trained import Trained, open_trained
from utils.report.results import write_results
from utils.run.folder import create_run_folder, read_json, write_json
from utils.run.log import LOG, start_log
from utils.tasks import TASKS
from utils.training.device import choose_device

DATA_FLAGS = ("data_path", "image_dir", "excel_path", "exclude", "cache_limit_gb")


def point_to_other_data(trained: Trained, typed: argparse.Namespace) -> None:
    """Put the data flags that were typed in place of the run's. CommandError for those of another task."""
    recorded = trained.args
    for name in DATA_FLAGS:
        value = getattr(typed, name)
        if value is None:
            continue
        if not hasattr(recorded, name):
            own = "--image_dir and --excel_path" if hasattr(recorded, "image_dir") else "--data_path"
            raise CommandError(f"--{name}: a run of {trained.state['script']} reads {own}")
        setattr(recorded, name, value)
    if typed.image_dir is not None and typed.excel_path is None:
        recorded.excel_path = None  # the run's table knows other people


def evaluate_split(
    trained: Trained, data: Any, split: str, folder: Path, corruptions: list[str]
) -> tuple[Any, dict[str, Any]]:
    """The verdict and figures of the script's own evaluate and report, and what is judged beside them."""
    script, args = trained.script, trained.args
    part = data.with_task(split, "any") if trained.task["task"] == "stage2" else data.parts()[split]
    rows = script.evaluate(trained.model, trained.batches_of(part), trained.device, amp=args.amp)
    verdict, fields = script.report(folder, split, rows, data, trained.state, args.max_batches > 0)
    fields["metrics"] = {split: fields["metrics"]}
    if corruptions:
        fields["degradation"] = degradation_table(trained, part, rows, corruptions, split, folder)
    return verdict, fields


def main(args: argparse.Namespace) -> None:
    start_log(None)
    run = Path(args.run)
    if run.is_file():
        raise CommandError(f"--run {run}: give the run folder; another checkpoint of it goes to --checkpoint")
    trained = open_trained(run, choose_device(args.device), args.checkpoint)
    script = trained.script
    if args.corrupt and trained.task["data"] != "anovox":
        raise CommandError(f"--corrupt: for AnoVox, not for a run of {trained.state['script']}")
    trained.state["history"] = read_json(run / "history.json")  # of all epochs, as the run's own report
    if args.paste and trained.task["data"] != "anovox":
        raise CommandError(f"--paste: only runs of train_anomaly_with_labels.py, not of {script.SCRIPT}")
    point_to_other_data(trained, args)
    if args.paste:
        folder = create_run_folder(run, "evaluation_paste", kind="")
        start_log(folder / "evaluate.log")
        split = None if args.data_path else run / "split.json"
        results = judge_pastes(trained, args.paste, split, folder)
        write_json(folder / "results.json", {"checkpoint": str(trained.path), "pasted": results})
        LOG.info(f"{args.paste} pastes; pastes.csv and results.json in {folder}")
        return
    data = script.build_datasets(trained.args)
    if args.split not in data.parts():
        raise CommandError(f"the data has no {args.split} split; it has {', '.join(data.parts())}")

    folder = create_run_folder(run, f"evaluation_{args.split}", kind="")
    start_log(folder / "evaluate.log")
    LOG.info(f"{trained.path}: {script.SCRIPT}, epoch {trained.state['epoch']}, {args.split} split")
    corruptions = list(CORRUPTIONS) if "all" in args.corrupt else args.corrupt
    verdict, fields = evaluate_split(trained, data, args.split, folder, corruptions)
    task = f"{TASKS[script.SCRIPT]['folder']}, {args.split}"
    write_results(
        folder, task, verdict, **fields, threshold=trained.state.get("threshold"),
        checkpoint=str(trained.path), epoch=trained.state["epoch"], synthetic=data.synthetic,
    )  # fmt: skip


if __name__ == "__main__":
    run_script(main, ARGS)
