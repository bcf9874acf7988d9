"""One peer trains ResNet-18 with L1 on a list of images, in the peers' environment (benchmarks.peers).

    python peers_worker.py torchvision|lightning|timm LIST.json PIXELS BATCH WORKERS THREADS

LIST.json holds [[path, age], ...]. Trains one epoch for every line of stdin and prints its seconds as JSON.
No augmentation: every peer opens, resizes and normalises the PNG as its own tools do by default.
"""

import json
import sys
import time

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import models, transforms

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Images(Dataset):
    """(image, age) as torchvision's ImageFolder would read it."""

    def __init__(self, rows: list, transform):
        self.rows, self.transform = rows, transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int):
        path, age = self.rows[index]
        with Image.open(path) as file:
            return self.transform(file.convert("RGB")), torch.tensor(age, dtype=torch.float32)


def answer(started: float) -> None:
    print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)


def plain_epoch(model: nn.Module, loader, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """The loop of torchvision's references: a loss, a step, a meter read every step."""
    criterion, total = nn.L1Loss(), 0.0
    model.train()
    for images, ages in loader:
        images, ages = images.to(device, non_blocking=True), ages.to(device, non_blocking=True)
        loss = criterion(model(images).squeeze(1), ages.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()


def plain_epochs(model: nn.Module, loader) -> None:
    """An epoch for every line of stdin, with AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-4)
    for _ in sys.stdin:
        started = time.perf_counter()
        plain_epoch(model, loader, optimizer, torch.device("cpu"))
        answer(started)


def plain_loader(rows: list, pixels: int, batch: int, workers: int) -> DataLoader:
    steps = transforms.Resize((pixels, pixels)), transforms.ToTensor(), transforms.Normalize(MEAN, STD)
    images = Images(rows, transforms.Compose(steps))
    return DataLoader(images, batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0)


def run_torchvision(*numbers) -> None:
    plain_epochs(models.resnet18(num_classes=1), plain_loader(*numbers))


def run_timm(rows: list, pixels: int, batch: int, workers: int) -> None:
    import timm
    from timm.data import create_loader

    loader = create_loader(
        Images(rows, None), (3, pixels, pixels), batch, is_training=True, no_aug=True, num_workers=workers,
        use_prefetcher=False, persistent_workers=workers > 0, device=torch.device("cpu"),
    )  # fmt: skip
    plain_epochs(timm.create_model("resnet18", num_classes=1), loader)


def run_lightning(*numbers) -> None:
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
            self.started = time.perf_counter()

        def on_train_epoch_end(self):
            answer(self.started)

    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = lightning.Trainer(accelerator="cpu", max_epochs=-1, **dict.fromkeys(quiet, False))
    trainer.fit(Regressor(), plain_loader(*numbers))


if __name__ == "__main__":
    peer, listing, *numbers = sys.argv[1:]
    with open(listing) as file:
        images = json.load(file)
    torch.set_num_threads(int(numbers.pop()))
    run = {"torchvision": run_torchvision, "timm": run_timm, "lightning": run_lightning}[peer]
    run(images, *map(int, numbers))
