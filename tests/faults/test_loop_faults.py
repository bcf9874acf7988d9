"""Mistakes that people make when they edit a training loop: each is typed into a script, and must be noticed.

The scripts are edited as text, as their users do, and run in the tiny worlds.
"""

import os
import subprocess
import sys
import types

import pytest
import torch

from tests.faults.stopped_runs import argv, only_run, whole_run
from utils.run.errors import ScriptError
from utils.run.folder import REPO_ROOT, read_json
from utils.tasks import TASKS, Metric
from utils.training.distributed import EpochSampler
from utils.training.learning import LearningCheck

STAGE1, MAE, ANOMALY = "train_stage1", "train_mae", "train_anomaly_with_labels"
CROPS = "crops"  # stage 1 with crops
BACKWARD = "        scaler.scale(loss).backward()\n"
MOVE = "batch = move(batch, device)\n"


def edited(script: str, *edits: tuple[str, str]) -> types.ModuleType:
    """The script with these pieces of its text replaced, as a module."""
    path = REPO_ROOT / f"{script}.py"
    source = path.read_text()
    for old, new in edits:
        assert old in source, f"{script}.py has no {old!r} any more: the fault is not planted"
        source = source.replace(old, new)
    module = types.ModuleType(script)
    exec(compile(source, str(path), "exec"), module.__dict__)
    return module


class Flagged(Exception):
    pass


def said_of(module, flags, folder, monkeypatch) -> list[str]:
    """The warnings of a run up to its second epoch, and the error that ended it."""
    check = LearningCheck.after_epoch

    def checked(self, *values, **options):
        check(self, *values, **options)
        if len(self.invariants.checkpoint.history) == 2:
            raise Flagged

    monkeypatch.setattr(LearningCheck, "after_epoch", checked)
    said = []
    try:
        module.main(module.parse_args(flags))
    except Flagged:
        pass
    except (ScriptError, RuntimeError, ValueError) as error:
        said.append(f"error: {error}")
    warnings = read_json(only_run(folder) / "status.json")["warnings"] + said
    return [
        text for text in warnings if "move too fast for people" not in text
    ]  # in the tiny world they jump


def in_step(text: str) -> tuple[str, str]:
    """Put a line before the batch goes to the model."""
    return MOVE, f"{MOVE}        {text}\n"


TRAINED = "model.parameters(), lr="
PLANTED = {
    # kind: (scripts, edits, flags, what is said)
    "gradients are not zeroed": (
        (STAGE1, CROPS, MAE, ANOMALY),
        [("        optimizer.zero_grad(set_to_none=True)\n", "")],
        [],
        "zero_grad",
    ),
    "half of the model is not in the optimizer": (
        (STAGE1, CROPS, MAE, ANOMALY),
        [(TRAINED, "list(model.parameters())[::2], lr=")],
        [],
        "the optimizer does not hold",
    ),
    "frozen by accident": (
        (STAGE1, CROPS),
        [
            (
                "    return PairClassifier(encoder, inputs, args.dropout, args.rescore), weights\n",
                "    model = PairClassifier(encoder, inputs, args.dropout, args.rescore)\n"
                "    for p in (model.trunk.person or model.trunk.geometry).parameters():\n"
                "        p.requires_grad_(False)\n"
                "    return model, weights\n",
            )
        ],
        [],
        "does not learn",
    ),
    "never in train mode": (
        (STAGE1, CROPS, MAE, "train_ddp", ANOMALY),
        [("    model.train()\n", "    model.eval()\n")],
        [],
        "model.train() is missing",
    ),
    "validation in train mode": (
        (STAGE1, CROPS, MAE, ANOMALY),
        [("    model.eval()\n", "    model.train()\n")],
        [],
        "in train mode while val",
    ),
    "training on val": (
        (STAGE1, CROPS, MAE, ANOMALY),
        [("run.loaders(data.train,", "run.loaders(data.val,")],
        [],
        "are trained on",
    ),
    "no augmentation": (
        (CROPS, ANOMALY),
        [("        if augmented:\n", "        if False:\n")],
        [],
        "look the same in every epoch",
    ),
    "the same augmentation every epoch": (
        (CROPS, ANOMALY),
        [("sampler.seed, epoch, device", "sampler.seed, 1, device")],
        [],
        "look the same in every epoch",
    ),
    "a loss of all with all": (
        (MAE,),
        [("criterion(preds.float(), batch", "criterion(preds.float()[:, None], batch")],
        [],
        "the loss compares all with all",
    ),
    "the loss has the wrong sign": (
        (STAGE1, MAE, ANOMALY),
        [("scaler.scale(loss)", "scaler.scale(-loss)")],
        [],
        "maximised",
    ),
    "labels are rolled against the inputs": (
        (STAGE1,),
        [in_step('batch["labels"] = batch["labels"].roll(1)')],
        [],
        "of other samples",
    ),
    "inputs arrive as zeros": (
        (STAGE1, CROPS),
        [in_step('batch["geometry"] = torch.zeros_like(batch["geometry"])')],
        [],
        "arrive",
    ),
    "images arrive as zeros": (
        (MAE, ANOMALY),
        [in_step('batch["images"] = torch.zeros_like(batch["images"])')],
        [],
        "arrive",
    ),
    "loaded weights are silently random": (
        (MAE,),
        [("load_weights(encoder,", "(lambda _, source: {'pretrained': True, 'source': source})(encoder,")],
        ["--weights", "imagenet"],
        "nothing was loaded",
    ),
    "one sample where eight were promised": (
        (MAE,),
        [
            (
                "    train_loader, loaders",
                "    read = type(data.train).__getitems__\n"
                "    type(data.train).__getitems__ = lambda self, i: read(self, i[:1])\n"
                "    train_loader, loaders",
            )
        ],
        [],
        "was promised",
    ),
    "one pair where a batch was promised": (
        (STAGE1,),
        [
            (
                "    train_loader, loaders",
                "    read = type(data.train).__getitems__\n"
                "    type(data.train).__getitems__ = lambda self, i: read(self, i[:1])\n"
                "    train_loader, loaders",
            )
        ],
        [],
        "was promised",
    ),
    "all pairs have one geometry": (
        (STAGE1,),
        [
            (
                "    train_loader, loaders",
                "    data.train.geometry[:] = data.train.geometry[:1]\n    train_loader, loaders",
            )
        ],
        [],
        "have the same geometry",
    ),
    "a learning rate of nearly nothing": ((STAGE1,), [], ["--lr", "1e-8"], "hardly moved"),
    "a learning rate of nothing": ((MAE, ANOMALY), [], ["--lr", "1e-8"], "did not change in an epoch"),
    "the scheduler is never stepped": (
        (STAGE1, MAE, ANOMALY),
        [("        scheduler.step()\n", "")],
        [],
        "stepped 0 times",
    ),
    "the scheduler is stepped twice": (
        (STAGE1, MAE, ANOMALY),
        [("        scheduler.step()\n", "        scheduler.step()\n        scheduler.step()\n")],
        [],
        "stepped 2 times",
    ),
    "test is taken for val": (
        (STAGE1, MAE, ANOMALY),
        [('loaders["val"], run.device', 'loaders["test"], run.device')],
        [],
        "another part was evaluated",
    ),
    "the best epoch by the wrong sign": (
        (MAE,),
        [
            (
                'validated[SELECT_BY] < best["model"]["value"]',
                'validated[SELECT_BY] > best["model"]["value"] or best["model"]["epoch"] == 0',
            )
        ],
        ["--lr", "1e-3"],
        "is kept as the best",
    ),
    "averaged weights are never updated": (
        (MAE,),
        [("            average(getattr(", "            (lambda weights, step: None)(getattr(")],
        [],
        "never updated",
    ),
    "normalised twice": (
        (MAE,),
        [("            preds = model(images)", "            preds = model((images - 0.45) / 0.225)")],
        [],
        "normalised twice or never",
    ),
    "all images are black": (
        (MAE,),
        [
            (
                "    train_loader, loaders",
                "    read = type(data.train).__getitems__\n"
                "    type(data.train).__getitems__ = lambda self, i: (b := read(self, i)) | "
                "{'images': 0 * b['images']}\n    train_loader, loaders",
            )
        ],
        [],
        "have the same images",
    ),
    "the model ignores the crops": (
        (CROPS,),
        [
            (
                "    return PairClassifier(encoder, inputs, args.dropout, args.rescore), weights\n",
                "    model = PairClassifier(encoder, inputs, args.dropout, args.rescore)\n"
                "    model.trunk.person.register_forward_hook(lambda m, i, o: 0 * o)\n"
                "    return model, weights\n",
            )
        ],
        [],
        "ignores crops",
    ),
    "the model ignores the scan": (
        (ANOMALY,),
        [
            (
                "    return AnomalyDetectionModel(encoder, *settings, token_grid=CELL_GRID), weights\n",
                "    model = AnomalyDetectionModel(encoder, *settings, token_grid=CELL_GRID)\n"
                "    model.register_forward_pre_hook(lambda m, i: (*i[:2], i[2] & False, i[3]))\n"
                "    return model, weights\n",
            )
        ],
        [],
        "ignores points",
    ),
    "the scan is lost on the way": (
        (ANOMALY,),
        [
            (
                "    return [batch[name] for name in INPUTS]",
                "    return [0 * batch[name] if name == 'points' else batch[name] for name in INPUTS]",
            )
        ],
        [],
        "points arrive at the model as zeros",
    ),
    "autocast is not applied": (
        (STAGE1,),
        [("with autocast(device, amp):", "with autocast(device, False):")],
        ["--amp"],
        "no autocast",
    ),
}
LONG, SEEDS = pytest.mark.long, range(1, 6)
CASES = [
    pytest.param(
        kind, script, seed, marks=() if script == STAGE1 and seed == 1 else LONG, id=f"{kind}-{script}-{seed}"
    )
    for kind, (scripts, *_) in PLANTED.items()
    for script in scripts
    for seed in (SEEDS if script == STAGE1 else SEEDS[:1])
]


def crops_world(tmp_path_factory=None):
    from datasets.samples import ensure_sample
    from tests.folders import new_folder

    return ensure_sample("jrdb", new_folder("jrdb_with_crops") / "sample", size="tiny")


def line(script: str, folder, *flags) -> list[str]:
    if script == CROPS:
        data = ["--data_path", crops_world(), "--features", "crops+geometry", "--image_size", 32, 16]
        return [str(x) for x in [*data, "--epochs", 3, "--output_dir", folder, *flags]]
    return argv(script, folder, *flags)


@pytest.mark.parametrize(("kind", "script", "seed"), CASES)
def test_a_fault_of_the_loop_is_named(kind, script, seed, tmp_path, monkeypatch):
    _, edits, flags, words = PLANTED[kind]
    module = edited(STAGE1 if script == CROPS else script, *edits)
    kept = {part: part.__dict__.get("__getitems__") for part in loaded_parts()}
    try:
        said = said_of(module, line(script, tmp_path, "--seed", seed, *flags), tmp_path, monkeypatch)
    finally:
        for part, read in kept.items():
            part.__getitems__ = read
    assert any(words in text for text in said), said


def loaded_parts():
    from datasets.jrdb.dataset import JRDBPairDataset
    from datasets.ultrasound.dataset import UltrasoundAgeDataset

    return [JRDBPairDataset, UltrasoundAgeDataset]


@pytest.mark.long
def test_loaded_weights_that_are_drawn_again_are_named(tmp_path, monkeypatch):
    again = (
        "    [part.reset_parameters() for part in encoder.modules() if hasattr(part, 'reset_parameters')]\n"
    )
    drawn = ("    return AgeRegressor(", again + "    return AgeRegressor(")
    flags = line(MAE, tmp_path, "--weights", whole_run(MAE))
    assert not any("loaded weights" in text for text in said_of(edited(MAE), flags, tmp_path, monkeypatch))
    flags[flags.index("--output_dir") + 1] = str(tmp_path / "again")
    said = said_of(edited(MAE, drawn), flags, tmp_path / "again", monkeypatch)
    assert any("the loaded weights are gone" in text for text in said), said


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=LONG) for seed in SEEDS[1:])])
def test_the_same_order_every_epoch_is_named(seed, tmp_path, monkeypatch):
    start = EpochSampler.start
    monkeypatch.setattr(EpochSampler, "start", lambda self, epoch, step=0: start(self, 1, step))
    said = said_of(edited(STAGE1), line(STAGE1, tmp_path, "--seed", seed), tmp_path, monkeypatch)
    assert any("same order every epoch" in text for text in said), said


HEALTHY = [
    (STAGE1, []),
    (STAGE1, ["--dropout", 0]),
    (STAGE1, ["--weight_decay", 0]),
    (STAGE1, ["--weight_decay", 0.1]),
    (STAGE1, ["--optimizer", "sgd", "--lr", "1e-2"]),
    (STAGE1, ["--scheduler", "cosine"]),
    (STAGE1, ["--batch_size", 500]),
    (STAGE1, ["--augment"]),
    (STAGE1, ["--lr", "1e-2"]),
    (CROPS, []),
    (CROPS, ["--features", "crops"]),
    ("train_stage2", ["--lr", "3e-3"]),
    ("train_stage2", ["--freeze_backbone"]),
    ("train_stage2", ["--loss", "cross_entropy"]),
    (MAE, []),
    (MAE, ["--ema_decay", 0]),
    (MAE, ["--warmup_epochs", 3]),
    (MAE, ["--freeze_batchnorm"]),
    (MAE, ["--rotation", 0, "--jitter", 0]),
    (MAE, ["--batch_size", 100]),
    ("train_ddp", []),
    (ANOMALY, []),
    (ANOMALY, ["--location_weight", 0]),
    (ANOMALY, ["--loss", "focal"]),
    (ANOMALY, ["--modality", "camera"]),
    (ANOMALY, ["--modality", "lidar"]),
    (ANOMALY, ["--fusion", "concat"]),
    (ANOMALY, ["--no-position_code"]),
    *((STAGE1, ["--seed", seed]) for seed in range(7, 17)),
    *((MAE, ["--seed", seed]) for seed in range(7, 12)),
    *((ANOMALY, ["--seed", seed]) for seed in range(7, 10)),
    *((CROPS, ["--seed", seed]) for seed in range(7, 10)),
    (STAGE1, ["--batch_size", 1, "--max_batches", 40]),
    (STAGE1, ["--overfit_one_batch"]),
    (STAGE1, ["--use_group_sampling", "--max_negatives_per_frame", 20]),
    (STAGE1, ["--max_grad_norm", 0.1]),
    (STAGE1, ["--history_seconds", 0]),
    (CROPS, ["--no-augment"]),
    ("train_stage2", ["--no-use_class_weights"]),
    ("train_ddp", ["--flip"]),
    ("train_ddp", ["--seed", 3]),
    (MAE, ["--overfit_one_batch"]),
    (MAE, ["--freeze_backbone"]),
]


@pytest.mark.parametrize(
    ("script", "flags"), [HEALTHY[0], *(pytest.param(*run, marks=LONG) for run in HEALTHY[1:])]
)
def test_a_healthy_loop_is_left_alone(script, flags, tmp_path, monkeypatch):
    said = said_of(
        edited(STAGE1 if script == CROPS else script), line(script, tmp_path, *flags), tmp_path, monkeypatch
    )
    slow = ("the train loss stays", "the train loss is flat")  # a tiny world may not be learned in two epochs
    assert not [text for text in said if not text.startswith(slow)], said


def test_label_smoothing_is_no_fault(tmp_path, monkeypatch):
    smooth = ('CrossEntropyLoss(reduction="none")', 'CrossEntropyLoss(reduction="none", label_smoothing=0.1)')
    assert said_of(edited(STAGE1, smooth), line(STAGE1, tmp_path), tmp_path, monkeypatch) == []


STEP = "        optimizer.zero_grad(set_to_none=True)\n        scaler.scale(loss).backward()\n"
CHANGED = {
    "gradients are cleared after the step": [
        (STEP, "        scaler.scale(loss).backward()\n"),
        ("        scaler.update()\n", "        scaler.update()\n        optimizer.zero_grad()\n"),
    ],
    "the batch goes through the model in parts": [
        (
            STEP,
            "        optimizer.zero_grad(set_to_none=True)\n"
            "        for some, ages in zip(images.split(2), batch['ages'].split(2)):\n"
            "            (criterion(model(some), ages).sum() * weight).backward()\n",
        )
    ],
    "OneCycleLR is stepped with every batch": [
        (
            "    return criterion, optimizer, scheduler\n",
            "    scheduler = schedulers.OneCycleLR(optimizer, args.learning_rate, total_steps=9000)\n"
            "    optimizer.register_step_post_hook(lambda *_: scheduler.step())\n"
            "    return criterion, optimizer, scheduler\n",
        ),
        ("        scheduler.step()\n        history", "        history"),
    ],
    "the encoder is frozen without a flag": [("    if args.freeze_backbone:", "    if True:")],
}


@pytest.mark.parametrize("change", CHANGED)
def test_a_loop_that_was_changed_rightly_is_left_alone(change, tmp_path, monkeypatch):
    assert said_of(edited(MAE, *CHANGED[change]), line(MAE, tmp_path), tmp_path, monkeypatch) == []


class OfAGpu(torch.nn.Module):
    """A loss with weights which, as on a GPU, takes what the model there gives and nothing from the CPU."""

    def __init__(self, loss):
        super().__init__()
        self.loss, self.on_cpu = loss, False
        self.register_buffer("weights", torch.ones(2))

    def cpu(self):
        self.on_cpu = True
        return self

    def forward(self, outputs, labels):
        if not (self.on_cpu or outputs.requires_grad):
            raise RuntimeError("Expected all tensors to be on the same device")
        return self.loss(outputs * self.weights[0], labels)


@pytest.mark.parametrize("script", [STAGE1, MAE, "train_ddp"])
def test_a_loss_with_weights_on_a_gpu_measures_val_on_the_cpu(script, tmp_path, monkeypatch):
    module = edited(script)
    build = module.build_recipe
    monkeypatch.setattr(module, "build_recipe", lambda *given: [OfAGpu(build(*given)[0]), *build(*given)[1:]])
    assert said_of(module, line(script, tmp_path), tmp_path, monkeypatch) == []


def test_a_metric_that_is_declared_but_not_measured_is_said_and_the_run_goes_on(tmp_path, monkeypatch):
    metrics = TASKS["train_mae.py"]["metrics"] | {"kappa": Metric("kappa")}
    monkeypatch.setitem(TASKS["train_mae.py"], "metrics", metrics)
    said = said_of(edited(MAE), line(MAE, tmp_path), tmp_path, monkeypatch)
    assert len(said) == 1 and "utils/tasks.py declares val_kappa, but " in said[0]
    log = (only_run(tmp_path) / "train.log").read_text()
    assert "val_kappa undefined" in log and "epoch 002" in log


@pytest.mark.long
@pytest.mark.parametrize(
    "edit",
    [
        ("trained = train_one_epoch(\n            model,", "trained = train_one_epoch(\n            bare,"),
        ("max_grad_norm or math.inf", "1e-3 if distributed.dist.get_rank() else math.inf"),
    ],
    ids=["the raw module is called", "gradients are clipped on one rank only"],
)
def test_processes_that_differ_are_named(edit, tmp_path):
    script = tmp_path / "train_stage1.py"
    source = (REPO_ROOT / "train_stage1.py").read_text()
    assert edit[0] in source
    script.write_text(source.replace(*edit))
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        str(script),
    ]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO_ROOT)}
    flags = [*argv(STAGE1, tmp_path / "out"), "--epochs", "1"]
    subprocess.run([*launch, *flags], cwd=REPO_ROOT, env=env, capture_output=True, text=True, timeout=240)
    warnings = read_json(only_run(tmp_path / "out") / "status.json")["warnings"]
    assert any("the processes have different weights" in text for text in warnings), warnings


def test_the_check_reads_nothing_from_the_device_in_later_steps(tmp_path, monkeypatch):
    """After the first steps no hook is left that waits for a value of a tensor."""
    module, seen, counts = edited(STAGE1), [], []
    train_one_epoch = module.train_one_epoch

    def counted(read):
        return lambda *values, **options: seen.append(read.__name__) or read(*values, **options)

    def watched(*values, **options):
        seen.clear()
        with monkeypatch.context() as patch:
            for name in ("__bool__", "__float__", "__int__", "item", "tolist", "numpy"):
                patch.setattr(torch.Tensor, name, counted(getattr(torch.Tensor, name)))
            found = train_one_epoch(*values, **options)
        counts.append(len(seen) / len(values[1].batch_sampler))
        return found

    module.train_one_epoch = watched
    module.main(module.parse_args(line(STAGE1, tmp_path)))
    assert counts[2] <= 1.5  # check_finite's one read a step
