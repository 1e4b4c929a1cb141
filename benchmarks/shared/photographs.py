"""Small DeiTs trained on CIFAR-10's photographs: images, config, a run at a time, intervals."""

from __future__ import annotations

import argparse
import json
import statistics
import zipfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# Student's t at 97.5 %, by the number of runs
T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}

CONFIG = """\
custom_imports = dict(imports={imports!r}, allow_failed_imports=False)
default_scope = "mmpretrain"
classes = {classes!r}
model = dict(
    type="ImageClassifier",
    data_preprocessor=dict(
        type="ClsDataPreprocessor", num_classes=len(classes), to_rgb=True,
        mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7],
    ),
    backbone=dict(
        img_size=32, **{backbone!r},
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
    optimizer=dict(type="AdamW", lr={rate}, betas=(0.9, 0.999), weight_decay=0.05),
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


def options(doc: str, kinds: Sequence[str], iterations: int) -> argparse.ArgumentParser:
    """What such a script can be told.

    Args:
        doc: of the script.
        kinds: of runs, to choose from.
        iterations: of a run where none are given.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="zip of train/CLASS/NAME.jpg")
    parser.add_argument("--workspace", type=Path, required=True, help="of images and runs; kept")
    parser.add_argument("--kinds", nargs="+", default=list(kinds), choices=list(kinds))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=iterations)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--val-images", type=int, help="the first N; all where left out")
    parser.add_argument("--most", type=int, help="runs to make now")
    parser.add_argument("--table", action="store_true", help="make no run")
    parser.add_argument("--output", help="JSON file, or - for none")
    return parser


def runs_of(
    given: argparse.Namespace, run: Callable[[str, int, Path], Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What came of the runs that are there, those that are missing made first.

    Args:
        given: values of :func:`options`.
        run: makes one of a kind with a seed on the images in a folder.
    """
    wanted = [(kind, seed) for seed in given.seeds for kind in given.kinds]
    if not given.table:
        images = unpacked(given.data, given.workspace / "images")
        missing = [one for one in wanted if not file_of(given, *one).exists()]
        for kind, seed in missing[: given.most]:
            found = {"kind": kind, "seed": seed, **run(kind, seed, images)}
            file_of(given, kind, seed).write_text(json.dumps(found, indent=2), encoding="utf-8")
    files = [file for one in wanted if (file := file_of(given, *one)).exists()]
    print(f"{len(files)} of {len(wanted)} runs are there", flush=True)
    return [json.loads(file.read_text()) for file in files]


def file_of(given: argparse.Namespace, kind: str, seed: int) -> Path:
    """Where the result of a run is; its folder has the same name without ``.json``."""
    name = "".join(letter if letter.isalnum() else "_" for letter in kind)
    return Path(given.workspace) / f"{name}-{seed}.json"


def written(
    given: argparse.Namespace,
    folder: Path,
    images: Path,
    imports: Sequence[str],
    backbone: Mapping[str, Any],
    rate: float = 1e-3,
) -> Path:
    """The config of a run, in its folder; ``rate`` is the largest learning rate."""
    folder.mkdir(parents=True, exist_ok=True)
    text = CONFIG.format(
        classes=sorted(path.name for path in (images / "train").iterdir()),
        imports=["sparsevit.models", *imports],
        backbone=dict(backbone),
        images=str(images.resolve()),
        depth=given.depth,
        batch=given.batch_size,
        iterations=given.iterations,
        rate=rate,
    )
    config = folder / "config.py"
    config.write_text(text, encoding="utf-8")
    return config


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


def interval(values: list[float]) -> list[float | None]:
    """[mean, half of its 95 % interval by Student's t]; None for what cannot be known."""
    if not values:
        return [None, None]
    mean = round(statistics.mean(values), 2)
    if len(values) not in T:
        return [mean, None]
    return [mean, round(T[len(values)] * statistics.stdev(values) / len(values) ** 0.5, 2)]
