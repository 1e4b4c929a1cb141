"""Swin-T backbones in every backend: mmdet's dense one and ours at three sparsities, paired.

    python benchmarks/backends.py                   # writes benchmarks/results/backends.json
    python benchmarks/backends.py --backends openvino --precisions bf16 --rounds 5 --output -

Within a backend and precision, one call of each in turn, mmdet's dense one in eager fp32 among
them; outputs in fp32 are compared with eager first. A backend that is not installed is left out,
and said.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from backbone import CONFIGURATIONS, backbones, largest_difference
from shared.record import account, gemm_gflops, interleave, summary, write

from sparsevit.errors import UserError
from sparsevit.latency.backends import BACKENDS, prepare
from sparsevit.latency.backends.base import DTYPES
from sparsevit.latency.cost import gmacs

PEER = "mmdet dense"
SHOWN = ("dense", "cfg2", "60%")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", default=list(BACKENDS), choices=list(BACKENDS))
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=list(DTYPES))
    parser.add_argument("--img-size", type=int, default=672)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--output", help="JSON file, or - for none")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    swin, sparse = backbones()
    images = torch.randn(arguments.batch_size, 3, arguments.img_size, arguments.img_size)
    results, left_out = {}, {}
    for precision in arguments.precisions:
        for backend in arguments.backends:
            name = f"{backend} {precision}"
            try:
                results[name] = measure(backend, precision, swin, sparse, images, arguments.rounds)
            except UserError as error:
                left_out[name] = str(error)
                print(f"{name}: left out. {error}", flush=True)
    result = {
        **account(),
        "img_size": arguments.img_size,
        "batch_size": arguments.batch_size,
        "left_out": left_out,
        "results": results,
    }
    write("backends", result, arguments.output)


def measure(
    backend: str, precision: str, swin: Any, sparse: Any, images: torch.Tensor, rounds: int
) -> dict[str, Any]:
    """Milliseconds of each backbone in one backend, paired, beside the floor of its products."""
    device = images.device
    eager = prepare("eager", swin, images)
    runs = {PEER: prepare(backend, swin, images, precision, device)}
    macs = {PEER: gmacs(lambda: eager(images))}
    expected = {PEER: eager(images)}
    for name in SHOWN:
        sparse.pruning_ratios = CONFIGURATIONS[name]
        runs[f"ours {name}"] = prepare(backend, sparse, images, precision, device)
        with torch.no_grad():
            expected[f"ours {name}"] = sparse(images)
            macs[f"ours {name}"] = gmacs(lambda: sparse(images))
    differences = {
        name: largest_difference(run(images), expected[name]) for name, run in runs.items()
    }
    if precision == "fp32":
        assert max(differences.values()) < 1e-3, differences
    calls = {name: lambda run=run: run(images) for name, run in runs.items()}
    samples = interleave({"mmdet eager fp32": lambda: eager(images), **calls}, rounds)
    rate = gemm_gflops(DTYPES[precision])

    rows: dict[str, Any] = {"gemm_gflops": round(rate, 1), "largest_difference": differences}
    for name, taken in samples.items():
        rows[name] = summary(taken, against=samples[PEER])
        if name in macs:
            rows[name]["gmacs"] = round(macs[name], 2)
            rows[name]["gemm_floor_ms"] = round(2 * macs[name] / rate * 1000, 1)
        print(
            f"{backend + ' ' + precision:<18}{name:<18}{rows[name]['median_ms']:>9.1f} ms  "
            f"{rows[name]['speedup']:.2f}x",
            flush=True,
        )
    return rows


if __name__ == "__main__":
    main()
