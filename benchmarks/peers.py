"""train_mae.py beside torchvision's references loop, Lightning's Trainer and timm, on the same images.

    python -m benchmarks peers

The peers' environment is data/benchmarks/peers, built from benchmarks/requirements.txt on first use (outside
the time) beside the project's own torch.
"""

import contextlib
import itertools
import json
import subprocess
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import torch
from torchvision import transforms

from benchmarks.measure import FOLDER, Report, times_faster
from benchmarks.peers_worker import Images
from benchmarks.scripts import Training, prepare
from benchmarks.worker import Worker

HERE = Path(__file__).resolve().parent
PEERS = ("torchvision", "lightning", "timm")
PIXELS, BATCH, WORKERS, THREADS = 96, 16, 2, 2


def peers_python() -> Path:
    """The interpreter of the peers' environment, made if need be; it borrows torch from this one."""
    folder = (FOLDER / "peers").absolute()
    python, done = folder / "bin" / "python", folder / "DONE"
    wanted = (HERE / "requirements.txt").read_text()
    if not done.exists() or done.read_text() != wanted:
        venv.create(folder, with_pip=True, clear=True)
        site = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})["purelib"]
        (Path(site) / "project.pth").write_text(sysconfig.get_paths()["purelib"])
        command = [python, "-m", "pip", "install", "--quiet", "-r", HERE / "requirements.txt"]
        subprocess.run(command, check=True)
        done.write_text(wanted)
    return python


def prepare_ours(amp: bool = False) -> Training:
    flags = ["--model", "resnet18", "--image_size", str(PIXELS), "--batch_size", str(BATCH), "--seed", "42"]
    return prepare("train_mae", flags + ["--amp"] * amp)


def our_worker(name: str, images: str) -> Callable[[], dict[str, float]]:
    """An epoch of train_mae.py per round."""
    torch.set_num_threads(THREADS)
    training = prepare_ours(amp="--amp" in name)
    training.augmentation = {}  # nobody augments
    epochs = itertools.count(1)
    return lambda: {"loss": training.epoch(epoch=next(epochs), steps=int(images) // BATCH)["loss"]}


def check_equal(rows: list, training: Training) -> None:
    """What a peer's transform gives, before it is normalised, must be our pixels."""
    plain = transforms.Compose([transforms.Resize((PIXELS, PIXELS)), transforms.PILToTensor()])
    theirs, ours = Images(rows, plain), training.train.__getitems__(range(8))["images"]
    if not all(torch.equal(theirs[k][0], ours[k]) for k in range(8)):
        raise AssertionError("the peers' pixels are not ours")


def peers(report: Report, quick: bool) -> None:
    """Beside torchvision's references, Lightning and timm.

    ResNet-18 with L1 on the ultrasound sample, the same images, size, batch, epochs and threads; nobody
    augments. Each lives in a process of its own and trains an epoch a round; the first does not count.
    """
    python, listing = peers_python(), FOLDER / "peers_images.json"
    images, training = 32 if quick else 96, prepare_ours()
    folder, train = training.data.sources[0].images, training.train
    files = zip(train.files[:images], train.ages[:images], strict=True)
    rows = [[str(folder / name), float(age)] for name, age in files]
    listing.write_text(json.dumps(rows))
    check_equal(rows, training)
    bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # emulated it is many times slower than float32
    limits = {"ours, fp32": 0.80} | ({"ours, --amp": 0.50} if bf16 else {})
    with contextlib.ExitStack() as stack:
        numbers, start = (PIXELS, BATCH, WORKERS, THREADS), [python, HERE / "peers_worker.py"]
        workers = {peer: Worker(peer, listing, *numbers, start=start) for peer in PEERS}
        workers |= {name: Worker("benchmarks.peers:our_worker", name, images) for name in limits}
        for worker in workers.values():
            stack.enter_context(worker)
        timings = report.measure(workers)
    report.timings(timings)
    for name, peer in itertools.product(limits, PEERS):
        ratio = times_faster(timings[name], timings[peer])
        report.judge(f"{name} / {peer}, epoch", ratio, at_most=limits[name])
    missing = "" if bf16 else " This processor has no bf16, so --amp was not measured."
    report.note(
        f"{images} images of the ultrasound sample at {PIXELS}x{PIXELS}, batch {BATCH}, {THREADS} threads; "
        f"the peers decode in {WORKERS} workers, ours reads its cache without any.{missing}"
    )
