"""Evaluate a run again on one of its splits, or on other data of its task, with the training script's code.

    python evaluate.py --run checkpoints/stage2_experiment_... --split test
    python evaluate.py --run RUN --checkpoint RUN/last.pth --split val
    python evaluate.py --run RUN --split all --data_path OTHER_DATA            a whole other data set
    python evaluate.py --run RUN --split all --image_dir OTHER/Images --excel_path OTHER.csv --id_column ID
    python evaluate.py --run RUN --split unseen                                data added since the run
    python evaluate.py --run ANOMALY_RUN --corrupt all                         the cost of failing sensors
    python evaluate.py --run ANOMALY_RUN --data_path RECORDINGS --paste 200    without labelled anomalies

Writes evaluation_report.txt, results.json and the figures into RUN/evaluation_SPLIT_TIMESTAMP/. For a stage 2
run it also judges both stages together: six outcomes for all pairs of every frame, and the social groups.

Only --split train judges data that the run was trained on. It is recognised by RUN/split.json and, under any
name, as an exact copy (RUN/hashes.json). The model has to beat the run's own baselines: the mean and median
of its train ages, its reference models.
"""

import argparse
from pathlib import Path

from datasets.anovox.flags import CORRUPTIONS
from prediction.flags import add_reading_arguments, read_otherwise
from utils.run import arguments
from utils.run.errors import CommandError
from utils.run.script import run_script

SPLITS = ("train", "val", "test", "unseen", "all")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = arguments.ScriptParser("evaluate.py", __doc__)
    add = parser.add_argument
    # fmt: off
    add("--run", required=True, help="run folder")
    add("--checkpoint", help="another checkpoint of that run; default: the best one")
    add("--split", choices=SPLITS, help="a part of the run's split.json; unseen: groups unknown to the run; "
        "all: the whole of another data set; default: test, or all if the run knows none of the groups")
    add("--corrupt", choices=[*CORRUPTIONS, "all"], nargs="+", metavar="FAILURE",
        help=f"anomaly runs: also judge the frames with failing sensors: {', '.join(CORRUPTIONS)}, all")
    add("--paste", type=arguments.positive_int, metavar="N",
        help="anomaly runs: only paste N or more objects, as many into each normal frame; counts the found")
    add("--cache_dir", type=arguments.place, help="folder of decoded images; default: the run's")
    add("--cache_limit_gb", type=arguments.positive_float, help="largest image cache; default: the run's")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--debug", action=argparse.BooleanOptionalAction, default=False, help="show every traceback")
    # fmt: on
    add_reading_arguments(parser)
    args = parser.parse_args(parser.typed(argv))
    parser.announce(argv)
    return args


if __name__ == "__main__":
    ARGS = parse_args()  # before the heavy imports

from prediction.judged import Judge
from prediction.trained import open_trained
from prediction.trials import judge_failures, judge_pastes
from utils.report.results import data_place, figure_title, write_report, write_results
from utils.run.find import find_run
from utils.run.folder import create_run_folder, read_arrays, write_json
from utils.run.log import LOG, start_log
from utils.training.device import choose_device


def main(args: argparse.Namespace) -> None:
    start_log(None)
    run = Path(args.run)
    if run.is_file():
        raise CommandError(f"--run {run}: pass the run folder, and the checkpoint as --checkpoint")
    trained = open_trained(run, choose_device(args.device), args.checkpoint)
    script = trained.script
    if (args.corrupt or args.paste) and trained.task["data"] != "anovox":
        raise CommandError(f"--corrupt and --paste are for AnoVox, not for a run of {script.SCRIPT}")
    trained.args.cache_dir = args.cache_dir or trained.args.cache_dir
    trained.args.cache_limit_gb = args.cache_limit_gb or trained.args.cache_limit_gb
    changed = read_otherwise(trained.args, args, script.SCRIPT)
    trained.state["args"] |= vars(trained.args)  # the figures name the data that is judged
    run = find_run(run)
    judge = Judge(run, args.split, own=not changed, unit=trained.task["groups"])
    if args.paste:
        folder = create_run_folder(run, "evaluation_paste")
        start_log(folder / "evaluate.log")
        results = judge_pastes(trained, args.paste, judge, folder)
        write_json(folder / "results.json", {"checkpoint": str(trained.path), "pasted": results})
        count = results["both sensors, all"]["pastes"]
        LOG.info(f"{count} pastes, as many into each frame; pastes.csv and results.json in {folder}")
        return
    data = script.build_datasets(trained.args, choose=judge)
    data.recorded = read_arrays(run / "references.npz")

    (split,) = data.split
    folder = create_run_folder(run, f"evaluation_{split}")
    start_log(folder / "evaluate.log")
    LOG.info(f"{trained.path}: {script.SCRIPT}, epoch {trained.state['epoch']}, {split} split")
    LOG.info(judge.sentence)
    part = data.all_in_range(split) if trained.task["task"] == "stage2" else data.parts[split]
    rows = trained.evaluate(part)
    verdict, fields = script.report(folder, split, rows, data, trained.state)
    fields["metrics"] = {split: fields["metrics"]}
    place = data_place(vars(trained.args), data.synthetic)
    title = [figure_title(trained.state, split), f"data: {place}", judge.sentence]
    title += [f"model: {trained.path}, epoch {trained.state['epoch']}"]
    path, sections = folder / "evaluation_report.txt", fields.pop("sections")
    write_report(path, "\n".join(title), verdict, fields["warnings"], sections)
    if args.corrupt:
        failures = list(CORRUPTIONS) if "all" in args.corrupt else args.corrupt
        fields["degradation"] = judge_failures(trained, part, rows, failures, folder)
    write_results(
        folder, f"{trained.task['folder']}, {split}", verdict, **fields, data=place, judged=judge.counts,
        threshold=trained.state.get("threshold"),
        checkpoint=str(trained.path), epoch=trained.state["epoch"], synthetic=data.synthetic,
    )  # fmt: skip


if __name__ == "__main__":
    run_script(main, ARGS)
