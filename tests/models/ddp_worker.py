"""One of two processes that train a backbone together: ``ddp_worker.py RANK FOLDER PORT``.

Each draws its own ratios, and one keeps no window of some blocks. The first process writes the
gradients that DDP came to, and those of both batches computed alone and averaged.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
from mmdet_backbones import small_swin
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

RATIOS = (
    [[0.3, 0.3], [0.5, 0.5], [0.0, 0.0], [0.95, 0.95]],
    [[0.6, 0.6], [0.0, 0.2], [0.99, 0.99], [0.95, 0.95]],
)


def gradients(model, rank):
    generator = torch.Generator().manual_seed(rank)
    images = torch.randn(2, 3, 90, 110, generator=generator)
    backbone = getattr(model, "module", model)
    backbone.pruning_ratios = RATIOS[rank]
    model.zero_grad()
    sum(out.square().mean() for out in model(images)).backward()
    return {k: p.grad for k, p in backbone.named_parameters()}


def main(rank: int, folder: Path, port: int) -> None:
    distributed.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    torch.manual_seed(0)
    model = small_swin("SparseViT", drop_path_rate=0.0).train()
    together = DistributedDataParallel(model, find_unused_parameters=True)
    # twice: what one iteration leaves behind must not be in the way of the next
    gradients(together, rank)
    got = {k: g.clone() for k, g in gradients(together, rank).items() if g is not None}
    distributed.barrier()
    if rank == 0:
        alone = [gradients(model, r) for r in range(2)]
        zero = {k: torch.zeros_like(p) for k, p in model.named_parameters()}
        expected = {k: sum(z if g[k] is None else g[k] for g in alone) / 2 for k, z in zero.items()}
        torch.save({"got": got, "expected": expected}, folder / "gradients.pth")
    # Without letting go of anything: a process has been seen to hang, its work done, where DDP and
    # the group are destroyed at the end of a function and of the interpreter.
    os._exit(0)


if __name__ == "__main__":
    # where it hangs it says where, after the time in which gloo would have given up
    faulthandler.dump_traceback_later(90, exit=True)
    main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
