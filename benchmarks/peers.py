"""train_mae.py beside torchvision's references loop, Lightning's Trainer and timm, on the same images.

    python -m benchmarks.peers

ResNet-18 with L1 on the ultrasound sample, the same images, size, batch, epochs and threads; nobody augments.
Each peer waits in a process of its own (peers_worker.py) and trains an epoch a round; the first does not
count. data/benchmarks/peers is their environment, built on first use beside the project's own torch.
"""

import itertools
import json
import subprocess
import sysconfig
import venv
from pathlib import Path
from typing import Any

import torch
from torchvision import transforms

from benchmarks.measure import FOLDER, judge, measure, run
from benchmarks.peers_worker import Images
from benchmarks.scripts import Training, prepare

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


class Peer:
    """A process that trains an epoch per call and says how long it took."""

    def __init__(self, *command: Any):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(list(map(str, command)), **pipes)

    def __call__(self) -> float:
        self.process.stdin.write("epoch\n")
        self.process.stdin.flush()
        if not (line := self.process.stdout.readline()):
            raise RuntimeError(f"{' '.join(self.process.args)} ended with {self.process.wait()}")
        return json.loads(line)["seconds"]


def prepare_ours(*more: str) -> Training:
    flags = ["--model", "resnet18", "--image_size", str(PIXELS), "--batch_size", str(BATCH), "--seed", "42"]
    training = prepare("train_mae", [*flags, *more])
    training.options["transform"] = None  # nobody augments
    return training


def check_equal(rows: list, training: Training) -> None:
    """What a peer's transform gives, before it is normalised, must be our pixels."""
    plain = transforms.Compose([transforms.Resize((PIXELS, PIXELS)), transforms.PILToTensor()])
    theirs, ours = Images(rows, plain), training.train.__getitems__(range(8))["images"]
    if not all(torch.equal(theirs[k][0], ours[k]) for k in range(8)):
        raise AssertionError("the peers' pixels are not ours")


def peers(quick: bool) -> None:
    torch.set_num_threads(THREADS)
    python, listing = peers_python(), FOLDER / "peers_images.json"
    images, training, epochs = 32 if quick else 96, prepare_ours(), itertools.count(1)
    folder, train = training.data.sources[0].images, training.train
    files = zip(train.files[:images], train.ages[:images], strict=True)
    rows = [[str(folder / name), float(age)] for name, age in files]
    listing.write_text(json.dumps(rows))
    check_equal(rows, training)
    ours, limits = {"ours, fp32": training}, {"ours, fp32": 0.80}
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():  # emulated it is many times slower than float32
        ours["ours, --amp"], limits["ours, --amp"] = prepare_ours("--amp"), 0.50
    numbers = (PIXELS, BATCH, WORKERS, THREADS)
    others = {peer: Peer(python, HERE / "peers_worker.py", peer, listing, *numbers) for peer in PEERS}
    steps = images // BATCH
    calls = {name: lambda t=t: t.epoch(epoch=next(epochs), steps=steps) for name, t in ours.items()}
    seconds = measure(others | calls, quick)
    for peer in others.values():
        peer.process.communicate()
    for name, peer in itertools.product(limits, PEERS):
        judge(f"{name} / {peer}, epoch", seconds[name] / seconds[peer], at_most=limits[name])
    size = f"{images} images of the ultrasound sample at {PIXELS}x{PIXELS}, batch {BATCH}, {THREADS} threads"
    print(f"{size}; the peers decode in {WORKERS} workers, ours reads its cache without any.")
    print("--amp where the processor has bf16.\n")


if __name__ == "__main__":
    run(__doc__.splitlines()[0], peers)
