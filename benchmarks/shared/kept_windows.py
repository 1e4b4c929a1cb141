"""The README's picture: windows that the demo's adapted model keeps at 60% on a larger image.

    python benchmarks/shared/kept_windows.py WORKSPACE docs/images/kept_windows.png

WORKSPACE is one in which the demo ran.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from sparsevit.data.scene import layout, paint
from sparsevit.data.spec import DatasetSpec
from sparsevit.engine.config import load_config
from sparsevit.engine.runner import build_model
from sparsevit.methods import methods_in
from sparsevit.sparsity.handle import SparsityHandle
from sparsevit.workspace import Workspace

RATIO = 0.6


def main(workspace: str, out: str) -> None:
    ws = Workspace.open(workspace, readonly=True)
    config, weights = ws.output("adapt", "config"), ws.output("adapt", "checkpoint")
    if config is None or weights is None:
        sys.exit(f"{workspace} has no finished adapt: run `sparsevit demo` in it first")
    cfg = load_config(config)
    model, _ = build_model(cfg, weights)
    handle = SparsityHandle(model)
    handle.set(handle.space.uniform(RATIO))
    spec = DatasetSpec(
        train=1,
        val=1,
        width=448,
        height=448,
        objects=(5, 9),
        object_size=(20, 60),
        classes=tuple(cfg.classes),
        seed=3,
    )
    image = np.ascontiguousarray(paint(spec, "val", 0, layout(spec, "val", 0)))
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    with torch.no_grad():
        batch = model.data_preprocessor({"inputs": [pixels], "data_samples": None})
        rgb = np.ascontiguousarray(image[..., ::-1])
        for method in methods_in(model):
            method.picture(batch["inputs"], rgb, Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
