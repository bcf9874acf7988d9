"""train_mae.py against torchvision's reference loop, Lightning's Trainer and timm, on the same images.

    python -m benchmarks.peers

ResNet-18 with L1 on the ultrasound sample: same images, size, batch, epochs and threads, no augmentation.
Every peer opens, resizes and normalises the PNG with its own default tools. Each waits in its own process
(`python -m benchmarks.peers PEER LIST.json`, a list of [path, age]) and trains one epoch per round; the first
does not count. Their environment, data/benchmarks/peers, is built on first use and shares our torch.
"""

import itertools
import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import models, transforms
from torchvision.datasets.folder import default_loader

from benchmarks.measure import judge, measure, run
from benchmarks.scripts import Training, prepare
from utils.run.folder import REPO_ROOT

FOLDER = Path("data").absolute() / "benchmarks"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
PIXELS, BATCH, WORKERS, THREADS = 96, 16, 2, 2
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Runs in the process of a peer


class Images(Dataset):
    """(image, age), read as torchvision's ImageFolder does."""

    def __init__(self, rows: list, transform):
        self.rows, self.transform = rows, transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int):
        path, age = self.rows[index]
        return self.transform(default_loader(path)), torch.tensor(age, dtype=torch.float32)


def plain_epoch(model: nn.Module, loader, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """The loop of torchvision's references: loss, step, and a meter that is read every step."""
    criterion, total = nn.L1Loss(), 0.0
    model.train()
    for images, ages in loader:
        images, ages = images.to(device, non_blocking=True), ages.to(device, non_blocking=True)
        loss = criterion(model(images).squeeze(1), ages.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()


def plain_epochs(model: nn.Module, loader: DataLoader) -> None:
    """Train an epoch with AdamW, and say so, for every line of stdin."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-4)
    for _ in sys.stdin:
        plain_epoch(model, loader, optimizer, torch.device("cpu"))
        print("trained", flush=True)


def plain_loader(rows: list, pixels: int = PIXELS, batch: int = BATCH, workers: int = WORKERS) -> DataLoader:
    steps = transforms.Resize((pixels, pixels)), transforms.ToTensor(), transforms.Normalize(MEAN, STD)
    images = Images(rows, transforms.Compose(steps))
    return DataLoader(images, batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0)


def run_torchvision(rows: list) -> None:
    plain_epochs(models.resnet18(num_classes=1), plain_loader(rows))


def run_timm(rows: list) -> None:
    import timm
    from timm.data import create_loader

    loader = create_loader(
        Images(rows, None), (3, PIXELS, PIXELS), BATCH, is_training=True, no_aug=True, num_workers=WORKERS,
        use_prefetcher=False, persistent_workers=True, device=torch.device("cpu"),
    )  # fmt: skip
    plain_epochs(timm.create_model("resnet18", num_classes=1), loader)


def run_lightning(rows: list) -> None:
    import lightning

    class Regressor(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = models.resnet18(num_classes=1)

        def training_step(self, batch):
            images, ages = batch
            loss = nn.functional.l1_loss(self.model(images).squeeze(1), ages)
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=1e-4, weight_decay=1e-4)

        def on_train_epoch_start(self):
            if not sys.stdin.readline():
                sys.exit()

        def on_train_epoch_end(self):
            print("trained", flush=True)

    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = lightning.Trainer(accelerator="cpu", max_epochs=-1, **dict.fromkeys(quiet, False))
    trainer.fit(Regressor(), plain_loader(rows))


PEERS = {"torchvision": run_torchvision, "lightning": run_lightning, "timm": run_timm}

# Runs in the benchmark


def peers_python() -> Path:
    """The interpreter of the peers' environment, which is built if missing and shares our torch."""
    folder = FOLDER / "peers"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        site = sysconfig.get_path("purelib", vars={"base": str(folder)})
        Path(site, "project.pth").write_text(sysconfig.get_path("purelib"))
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS], check=True)
    return python


class Peer:
    """A process that trains one epoch per call."""

    def __init__(self, *command: Any):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(list(map(str, command)), cwd=REPO_ROOT, **pipes)

    def __call__(self) -> None:
        self.process.stdin.write("epoch\n")
        self.process.stdin.flush()
        if not self.process.stdout.readline():
            raise RuntimeError(f"{' '.join(self.process.args)} ended with {self.process.wait()}")


def prepare_ours(*more: str) -> Training:
    flags = ["--model", "resnet18", "--image_size", str(PIXELS), "--batch_size", str(BATCH), "--seed", "42"]
    training = prepare("train_mae", [*flags, *more])
    training.options["transform"] = None  # no augmentation
    return training


def rows_of(training: Training, count: int | None = None) -> list[list]:
    """[path, age] of the first images that train_mae.py trains on."""
    folder, train = training.data.sources[0].images, training.train
    files = zip(train.files[:count], train.ages[:count], strict=True)
    return [[str(folder / name), float(age)] for name, age in files]


def check_equal(rows: list, training: Training) -> None:
    """Assert that a peer's transform, before normalisation, gives our pixels in each of its channels."""
    plain = transforms.Compose([transforms.Resize((PIXELS, PIXELS)), transforms.PILToTensor()])
    theirs, ours = Images(rows, plain), training.train.__getitems__(range(8))["images"]
    if not all(torch.equal(theirs[k][0], ours[k].expand(3, -1, -1)) for k in range(8)):
        raise AssertionError("the peers' pixels are not ours")


def peers(quick: bool) -> None:
    torch.set_num_threads(THREADS)
    python, listing = peers_python(), FOLDER / "peers_images.json"  # absolute: peers run in the repository
    images, training, epochs = 32 if quick else 96, prepare_ours(), itertools.count(1)
    rows = rows_of(training, images)
    listing.write_text(json.dumps(rows))
    check_equal(rows, training)
    ours, limits = {"ours, fp32": training}, {"ours, fp32": 0.80}
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():  # if emulated, it is many times slower than float32
        ours["ours, --amp"], limits["ours, --amp"] = prepare_ours("--amp"), 0.50
    others = {peer: Peer(python, "-m", "benchmarks.peers", peer, listing) for peer in PEERS}
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
    if sys.argv[1:2] and sys.argv[1] in PEERS:
        torch.set_num_threads(THREADS)
        PEERS[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text()))
    else:
        run(__doc__.splitlines()[0].rstrip("."), peers)
