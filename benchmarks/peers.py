"""train_mae.py beside torchvision's references loop, Lightning's Trainer and timm, on the same images.

    python -m benchmarks.peers

ResNet-18 with L1 on the ultrasound sample, the same images, size, batch, epochs and threads; nobody
augments. Each lives in a process of its own and trains an epoch a round; the first does not count. The peers'
environment is data/benchmarks/peers, built from benchmarks/requirements.txt on first use (outside the time)
beside the project's own torch. Before the timing the pixels a peer trains on are compared with ours.
"""

import argparse
import contextlib
import itertools
import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import torch

from benchmarks.peers_worker import Images
from benchmarks.report import FOLDER, Report
from benchmarks.scripts import Training, prepare
from benchmarks.timing import has_bf16, measure, times_faster
from benchmarks.worker import Worker, serve

HERE = Path(__file__).resolve().parent
PEERS = ("torchvision", "lightning", "timm")
BATCH, WORKERS, THREADS = 16, 2, 2


def peers_python() -> Path:
    """The interpreter of the peers' environment, made if need be; it borrows torch from this one."""
    folder = (FOLDER / "peers").absolute()
    python, done = folder / "bin" / "python", folder / "DONE"
    wanted = (HERE / "requirements.txt").read_text()
    if not done.exists() or done.read_text() != wanted:
        venv.create(folder, with_pip=True, clear=True)
        site = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})["purelib"]
        (Path(site) / "project.pth").write_text(sysconfig.get_paths()["purelib"])
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "-r", HERE / "requirements.txt"], check=True
        )
        done.write_text(wanted)
    return python


def work(pixels: int, amp: bool, limit: int) -> None:
    """The worker of train_mae.py: an epoch per round."""
    torch.set_num_threads(THREADS)
    training = prepare_ours(pixels, amp)
    training.script.augment = lambda images, *_, **__: images  # nobody augments
    epochs = itertools.count(1)
    serve(lambda: {"loss": training.epoch(epoch=next(epochs), steps=limit // BATCH)["loss"]})


def prepare_ours(pixels: int, amp: bool = False) -> Training:
    flags = ["--model", "resnet18", "--image_size", str(pixels), "--batch_size", str(BATCH), "--seed", "42"]
    return prepare("train_mae", flags + (["--amp"] if amp else []))


def list_images(limit: int, path: Path) -> list:
    """Write path and age of the first `limit` training images; returns the rows."""
    training = prepare_ours(96)
    folder = training.data.sources[0].images
    train = training.train
    rows = [[str(folder / name), float(age)] for name, age in zip(train.files, train.ages, strict=True)][
        :limit
    ]
    path.write_text(json.dumps(rows))
    return rows


def check_equal(rows: list, pixels: int) -> None:
    """What a peer's transform gives, before it is normalised, must be our pixels."""
    from torchvision import transforms

    plain = transforms.Compose([transforms.Resize((pixels, pixels)), transforms.PILToTensor()])
    theirs, ours = Images(rows, plain), prepare_ours(pixels).train.__getitems__(range(8))["images"]
    if not all(torch.equal(theirs[k][0], ours[k]) for k in range(8)):
        raise AssertionError("the peers' pixels are not ours")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few images and rounds: for development")
    parser.add_argument("--worker", nargs=3, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(*args.worker)
    report = Report("peers", "Beside torchvision's references, Lightning and timm", args.quick)
    python, listing = peers_python(), FOLDER / "peers_images.json"
    pixels, images = 96, 32 if args.quick else 96
    check_equal(list_images(images, listing), pixels)
    numbers = [pixels, BATCH, WORKERS, THREADS]
    commands = {peer: [python, HERE / "peers_worker.py", peer, listing, *numbers] for peer in PEERS}
    limits = {"ours, fp32": 0.80} | ({"ours, --amp": 0.50} if has_bf16() else {})
    start = [sys.executable, "-m", "benchmarks.peers", "--worker", pixels]
    commands |= {name: [*start, int("amp" in name), images] for name in limits}
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(command)) for name, command in commands.items()}
        timings = measure(workers, *((2, 0.01) if args.quick else (7, 0.3)))
    report.timings(timings)
    for peer in PEERS:
        for name, limit in limits.items():
            report.judge(f"{name} / {peer}, epoch", times_faster(timings[name], timings[peer]), at_most=limit)
    report.note(
        f"{images} images of the ultrasound sample at {pixels}x{pixels}, batch {BATCH}, {THREADS} threads; "
        f"the peers decode in {WORKERS} workers, ours reads its cache without any."
        + ("" if has_bf16() else " This processor has no bf16, so --amp was not measured.")
    )
    report.finish()


if __name__ == "__main__":
    main()
