"""Sparse trainings of a small DeiT on CIFAR-10's images: does dynamic beat static, and dense by how
much?

    python benchmarks/svite.py --data cifar10.zip --workspace runs/svite  # one run after the other
    python benchmarks/svite.py --data cifar10.zip --workspace runs/svite --most 1  # one at a time
    python benchmarks/svite.py --data cifar10.zip --workspace runs/svite --table  # what is there

The archive has ``train/CLASS/NAME.jpg``; the last tenth of each class is for validation. Every kind
trains for the same number of iterations from the same seeds. A run that is done is not done again,
and one that was killed goes on; results are written to benchmarks/results/svite.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.console import Console
from shared.record import account, write

from sparsevit.engine.checkpoint import read_checkpoint
from sparsevit.phases.pretrain import pretrain
from sparsevit.report.reporter import ConsoleReporter
from sparsevit.sparsity.weights import prunable

KINDS: dict[str, dict[str, Any]] = {
    "dense": {},
    "static 50 %": {"density": 0.5},
    "SViTE 50 %": {"density": 0.5, "update_interval": None},
    "S2ViTE 40 %": {"heads": 0.7, "neurons": 0.6, "update_interval": None},
    "SViTE+ 50 %, 10 % fewer tokens": {"density": 0.5, "tokens": 0.9, "update_interval": None},
}
"""Options of each; an interval of None becomes that of the script's arguments."""

# Student's t at 97.5 %, by the number of runs
T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}

CONFIG = """\
custom_imports = dict(
    imports=["sparsevit.models", "sparsevit.models.svite"], allow_failed_imports=False
)
default_scope = "mmpretrain"
classes = {classes!r}
model = dict(
    type="ImageClassifier",
    data_preprocessor=dict(
        type="ClsDataPreprocessor", num_classes=len(classes), to_rgb=True,
        mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7],
    ),
    backbone=dict(
        type="SViTE", img_size=32, patch_size=4, svite={svite!r},
        arch=dict(
            embed_dims=192, num_layers={depth}, num_heads=3, feedforward_channels=768,
        ),
    ),
    neck=None,
    head=dict(
        type="VisionTransformerClsHead", num_classes=len(classes), in_channels=192,
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1, mode="original"),
    ),
    init_cfg=[
        dict(type="TruncNormal", layer="Linear", std=0.02),
        dict(type="Constant", layer="LayerNorm", val=1.0, bias=0.0),
    ],
)
dataset = dict(type="CustomDataset", data_root={images!r}, metainfo=dict(classes=classes))
train_dataloader = dict(
    batch_size={batch}, num_workers=0, sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        **dataset, data_prefix="train",
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="RandomCrop", crop_size=32, padding=4),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackInputs"),
        ],
    ),
)
val_dataloader = dict(
    batch_size=100, num_workers=0, drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        **dataset, data_prefix="val", test_mode=True,
        pipeline=[dict(type="LoadImageFromFile"), dict(type="PackInputs")],
    ),
)
del dataset
test_dataloader = val_dataloader
val_evaluator = dict(type="Accuracy", topk=(1, 5))
test_evaluator = val_evaluator
iterations = {iterations}
train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations, val_interval=1_000_000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=max(1, iterations // 10)),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=max(1, iterations // 10), end=iterations,
         eta_min_ratio=0.01),
]
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=20, log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=max(1, iterations // 10)),
    sampler_seed=dict(type="DistSamplerSeedHook"),
)
log_processor = dict(type="LogProcessor", window_size=20, by_epoch=False)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="zip of train/CLASS/NAME.jpg")
    parser.add_argument("--workspace", type=Path, required=True, help="of images and runs; kept")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--updates", type=int, default=40, help="in as many iterations, if all ran")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--val-images", type=int, help="the first N; all where left out")
    parser.add_argument("--most", type=int, help="runs to make now")
    parser.add_argument("--table", action="store_true", help="make no run")
    parser.add_argument("--output", help="JSON file, or - for none")
    arguments = parser.parse_args()
    wanted = [(kind, seed) for seed in arguments.seeds for kind in arguments.kinds]
    missing = [one for one in wanted if not _file(arguments, *one).exists()]
    if not arguments.table:
        images = unpacked(arguments.data, arguments.workspace / "images")
        for kind, seed in missing[: arguments.most]:
            found = run(kind, seed, images, arguments)
            _file(arguments, kind, seed).write_text(json.dumps(found, indent=2), encoding="utf-8")
    runs = [
        json.loads(_file(arguments, *one).read_text()) for one in wanted if _there(arguments, one)
    ]
    settings = {name: getattr(arguments, name) for name in ("iterations", "batch_size", "depth")}
    result = {**account(), **settings, "runs": runs, "kinds": table(runs)}
    for kind, row in result["kinds"].items():
        print(f"{kind:<32}" + "  ".join(f"{name} {value}" for name, value in row.items()))
    print(f"{len(runs)} of {len(wanted)} runs are there", flush=True)
    write("svite", result, arguments.output)


def unpacked(archive: Path, folder: Path) -> Path:
    """Folders of classes in ``train`` and ``val``, the last tenth of each class in the latter."""
    if (folder / "complete").exists():
        return folder
    with zipfile.ZipFile(archive) as held:
        classes = defaultdict(list)
        for name in sorted(held.namelist()):
            parts = Path(name).parts
            if len(parts) == 3 and parts[0] == "train":
                classes[parts[1]].append(name)
        for label, names in classes.items():
            for index, name in enumerate(names):
                split = "train" if index < len(names) * 9 // 10 else "val"
                target = folder / split / label / Path(name).name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(held.read(name))
    (folder / "complete").touch()
    return folder


def run(kind: str, seed: int, images: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One training, and what came of it."""
    options = dict(KINDS[kind])
    if "update_interval" in options:
        options["update_interval"] = max(1, arguments.iterations // arguments.updates)
    folder = _file(arguments, kind, seed).with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    classes = sorted(path.name for path in (images / "train").iterdir())
    text = CONFIG.format(
        classes=classes,
        svite=options,
        images=str(images.resolve()),
        depth=arguments.depth,
        batch=arguments.batch_size,
        iterations=arguments.iterations,
    )
    config = folder / "config.py"
    config.write_text(text, encoding="utf-8")
    made = pretrain(
        config,
        workspace=folder / "workspace",
        seed=seed,
        eval_images=arguments.val_images,
        reporter=ConsoleReporter(Console(stderr=True)),
    )
    weights = {
        name: one
        for name, one in read_checkpoint(made.checkpoint)["state_dict"].items()
        if prunable(name, one.shape)
    }
    alive = sum(int((one != 0).sum()) for one in weights.values())
    return {
        "kind": kind,
        "seed": seed,
        "svite": options,
        "top1": made.after["dense"]["top1"],
        "loss": made.loss,
        "seconds": round(made.seconds, 1),
        "resumed": made.resumed,
        "alive": round(alive / sum(one.numel() for one in weights.values()), 4),
    }


def table(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By kind: mean top-1 and its 95 % interval, and the same of what it has more than static
    masks from the same seeds."""
    by_kind: dict[str, dict[int, float]] = defaultdict(dict)
    for one in runs:
        by_kind[one["kind"]][one["seed"]] = one["top1"]
    static = by_kind.get("static 50 %", {})
    rows = {}
    for kind, scores in by_kind.items():
        paired = [score - static[seed] for seed, score in scores.items() if seed in static]
        alive = [one["alive"] for one in runs if one["kind"] == kind]
        rows[kind] = {
            "alive": round(statistics.mean(alive), 3),
            "top1": interval(list(scores.values())),
            "above_static": interval(paired),
        }
    return rows


def interval(values: list[float]) -> list[float | None]:
    """[mean, half of its 95 % interval by Student's t]; None for what cannot be known."""
    if not values:
        return [None, None]
    mean = round(statistics.mean(values), 2)
    if len(values) not in T:
        return [mean, None]
    return [mean, round(T[len(values)] * statistics.stdev(values) / len(values) ** 0.5, 2)]


def _file(arguments: argparse.Namespace, kind: str, seed: int) -> Path:
    name = "".join(letter if letter.isalnum() else "_" for letter in kind)
    return Path(arguments.workspace) / f"{name}-{seed}.json"


def _there(arguments: argparse.Namespace, one: tuple[str, int]) -> bool:
    return _file(arguments, *one).exists()


if __name__ == "__main__":
    main()
