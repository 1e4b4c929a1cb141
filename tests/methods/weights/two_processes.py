"""One of two processes that train a sparse transformer together: ``two_processes.py RANK FOLDER
PORT``. Each writes the masks, scores and weights that it has at the end."""

from __future__ import annotations

import faulthandler
import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
from svite_models import Training, classifier
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

KINDS = {
    "unstructured": {"density": 0.5, "update_interval": 2, "tokens": 0.7},
    "structured": {"heads": 0.5, "neurons": 0.5, "update_interval": 2},
}


def main(rank: int, folder: Path, port: int) -> None:
    distributed.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    ends = {}
    for kind, options in KINDS.items():
        model = classifier(svite=options)
        together = DistributedDataParallel(model, find_unused_parameters=True)
        training = Training(model, total=10, wrapped=together).run(10, rank=rank)
        noise = model.backbone.token_selector.seed if "tokens" in options else None
        ends[kind] = {**training.saved(), "noise": noise}
    torch.save(ends, folder / f"{rank}.pth")
    distributed.barrier()
    # without letting go of anything, as in tests/models/ddp_worker.py
    os._exit(0)


if __name__ == "__main__":
    faulthandler.dump_traceback_later(90, exit=True)
    main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
