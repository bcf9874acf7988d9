"""train_mae.py beside torchvision's references loop, Lightning's Trainer and timm, on the same images.

    python -m benchmarks.peers

ResNet-18 with L1 on the ultrasound sample, the same images, size, batch, epochs and threads; nobody
augments. Each run is a process of its own and the epochs from the second on count. The peers live in
data/benchmarks/peers, built from benchmarks/requirements.txt on first use (outside the time) beside the
project's own torch. Before the timing the pixels a peer trains on are compared with ours.
"""

import argparse
import json
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

import numpy as np
import torch

from benchmarks.peers_worker import Images
from benchmarks.report import FOLDER, Report
from benchmarks.scripts import Training, prepare
from benchmarks.timing import has_bf16, measure, times_faster

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


def train_ours(pixels: int, epochs: int, amp: bool, limit: int) -> list[float]:
    """In this process: seconds of the epochs of train_mae.py."""
    torch.set_num_threads(THREADS)
    training = prepare_ours(pixels, amp)
    steps = limit // BATCH
    training.script.augment = lambda images, *_, **__: images  # nobody augments
    seconds = []
    for epoch in range(1, epochs + 1):
        started = time.perf_counter()
        training.epoch(epoch=epoch, steps=steps)
        seconds.append(time.perf_counter() - started)
    return seconds


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


def run(command: list) -> float:
    """Seconds of an epoch, the median from the second on, of a run in a process of its own."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{done.stderr[-2000:]}")
    return float(np.median(json.loads(done.stdout.splitlines()[-1])["seconds"][1:]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few images, one round: for development")
    parser.add_argument("--ours", nargs=4, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.ours:
        pixels, epochs, amp, limit = args.ours
        return print(json.dumps({"seconds": train_ours(pixels, epochs, bool(amp), limit)}))
    report = Report("peers", "Beside torchvision's references, Lightning and timm", args.quick)
    python, listing = peers_python(), FOLDER / "peers_images.json"
    pixels, epochs, images = (96, 2, 32) if args.quick else (96, 3, 128)
    rows = list_images(images, listing)
    check_equal(rows, pixels)
    variants = {
        peer: lambda peer=peer: run(
            [python, HERE / "peers_worker.py", peer, listing, pixels, BATCH, epochs, WORKERS, THREADS]
        )
        for peer in PEERS
    }
    limits = {"ours, fp32": 0.80} | ({"ours, --amp": 0.50} if has_bf16() else {})
    for name in limits:
        amp = int("amp" in name)
        command = [sys.executable, "-m", "benchmarks.peers", "--ours", pixels, epochs, amp, images]
        variants[name] = lambda command=command: run(command)
    timings = measure(variants, rounds=1 if args.quick else 4, least=0)
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
