"""Swin-T backbones on a GPU: mmdet's dense one eager and compiled, the paper's algorithm, ours.

    python benchmarks/gpu.py                         # writes benchmarks/results/gpu.json
    python benchmarks/gpu.py --img-size 672 --batch-size 1 --dtype fp16 --profile
    python benchmarks/gpu.py --smoke --output -      # a tiny backbone, a GPU or not: does it run?

Needs PyTorch with CUDA, and nothing else: no mmdet, no installation of this package. Without mmdet
its part is taken by the plain Swin of ``shared/plain_swin.py``, and named so. Outputs are compared
first; what disagrees is not timed, and the exit code is 1 in the end. The rest is timed one call of
each in turn. Results are written after every case, so a run that is cut short keeps what it has.
"""

from __future__ import annotations

import argparse
import copy
import functools
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from shared.agreement import agreement
from shared.record import account, interleave, summary, wait, write
from shared.swin import CONFIGURATIONS, SWIN_T
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "shared"), str(ROOT)]
from plain_forward import plain_forward  # noqa: E402

TINY = {"embed_dims": 16, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 4, 8]}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Case:
    """What is timed together."""

    dtype: str
    batch_size: int
    img_size: int


def main() -> None:
    arguments = parse()
    if not torch.cuda.is_available() and not arguments.smoke:
        print("There is no CUDA device here, so nothing was timed. On a machine with one:")
        print("    python benchmarks/gpu.py")
        return
    # float32 means float32, in every peer; and ours may use its kernels in it too
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    os.environ["SPARSEVIT_KERNELS"] = "all"
    peer = prepare(arguments.plain)
    swin, sparse = backbones(TINY if arguments.smoke else SWIN_T)
    result: dict[str, Any] = {**account(), "smoke": arguments.smoke, "peer": peer, "cases": []}
    sizes = arguments.img_size or ([64] if arguments.smoke else [672, 1344])
    for dtype, batch, size in product(arguments.dtype, arguments.batch_size, sizes):
        case = Case(dtype, batch, size)
        result["cases"].append(run_case(case, swin, sparse, peer, arguments))
        write("gpu", result, arguments.output)
    wrong = [f"{name}: {why}" for c in result["cases"] for name, why in c["failures"].items()]
    if wrong:
        raise SystemExit("Not timed:\n" + "\n".join(wrong))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--img-size", type=int, nargs="+", help="672 and 1344 where not given")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--dtype", nargs="+", default=["fp16", "fp32"], choices=list(DTYPES))
    parser.add_argument("--config", nargs="+", default=list(CONFIGURATIONS), choices=CONFIGURATIONS)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--compile-mode", default="reduce-overhead", help="or none: leave it out")
    parser.add_argument("--plain", action="store_true", help="do without mmdet even if it is there")
    parser.add_argument("--profile", action="store_true", help="what ours spends its time on")
    parser.add_argument("--smoke", action="store_true", help="a tiny backbone: no figure counts")
    parser.add_argument("--output", help="JSON file, or - for none")
    return parser.parse_args()


def prepare(plain: bool) -> str:
    """Make ``sparsevit.models.sparsevit`` importable; returns what the dense peer is called."""
    if not plain and importlib.util.find_spec("mmdet") is not None:
        import sparsevit.models  # noqa: F401

        return "mmdet"
    from shared.plain_swin import stand_in

    stand_in()
    return "Swin, plain (mmdet's algorithm)"


def backbones(shape: dict[str, Any]) -> tuple[nn.Module, Any]:
    """The dense Swin and ours, with the same weights, in float32 on the CPU."""
    from mmdet.models.backbones.swin import SwinTransformer

    from sparsevit.models.sparsevit import SparseViT

    torch.manual_seed(0)
    swin, sparse = SwinTransformer(**shape), SparseViT(**shape)
    for name, parameter in swin.named_parameters():
        # no term may hide behind a 0 or a 1
        if "norm" in name and name.endswith("weight"):
            nn.init.uniform_(parameter, 0.5, 1.5)
        elif parameter.ndim == 1 or "bias_table" in name:
            nn.init.normal_(parameter, 0, 0.3)
        else:
            nn.init.normal_(parameter, 0, parameter[0].numel() ** -0.5)
    sparse.load_state_dict(swin.state_dict())
    swin.eval()
    sparse.eval()
    return swin, sparse


def run_case(
    case: Case, swin: nn.Module, sparse: Any, peer: str, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Compare and time all routes of one case."""
    from sparsevit.latency.cost import gmacs

    print(f"\n{case.dtype}, batch {case.batch_size}, {case.img_size} x {case.img_size}", flush=True)
    device, dtype = "cuda" if torch.cuda.is_available() else "cpu", DTYPES[case.dtype]
    swin, sparse = (copy.deepcopy(model).to(device, dtype) for model in (swin, sparse))
    images = pictures(case).to(device, dtype)
    calls: dict[str, Callable[[], Any]] = {}
    macs, agreements, failures = {}, {}, {}
    with torch.inference_mode():
        dense = f"{peer}, dense, eager"
        calls[dense] = lambda: swin(images)
        macs[dense] = gmacs(calls[dense])
        if arguments.compile_mode != "none":
            name = f"{peer}, dense, compiled ({arguments.compile_mode})"
            try:
                call = compiled(swin, images, arguments.compile_mode)
                agreements[name] = agreement(call(), calls[dense]())
                calls[name], macs[name] = call, macs[dense]
            except Exception as problem:
                failures[name] = f"{type(problem).__name__}: {problem}"[:300]
        for config in arguments.config:
            ratios = CONFIGURATIONS[config]
            if arguments.smoke:
                ratios = [stage[:2] for stage in ratios]
            paper = f"paper's algorithm, {config}"
            calls[paper] = functools.partial(plain_forward, swin, images, ratios)
            macs[paper] = gmacs(calls[paper])
            expected = calls[dense if config == "dense" else paper]()
            for route, call in our_routes(sparse, images, ratios):
                name = f"ours, {route}, {config}"
                try:
                    agreements[name] = agreement(call(), expected)
                except Exception as problem:
                    failures[name] = f"{type(problem).__name__}: {problem}"[:300]
                    continue
                if agreements[name].holds(case.dtype, config == "dense"):
                    calls[name], macs[name] = call, macs[paper]
                else:
                    failures[name] = f"disagrees: {agreements[name]}"
        samples = interleave(calls, 3 if arguments.smoke else arguments.rounds)
        rate = gemm_gflops(device, dtype)
        profiled = profile(calls, arguments) if arguments.profile else {}
    return {
        **asdict(case),
        "kernels": kernels_in_use(sparse, images),
        "gemm_gflops": round(rate, 1),
        "agreement": {name: asdict(found) for name, found in agreements.items()},
        "failures": failures,
        "profile": profiled,
        "results": rows(samples, macs, rate, dense),
    }


def our_routes(
    sparse: Any, images: Tensor, ratios: list[list[float]]
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The same backbone four ways: with and without kernels, with and without a CUDA graph."""
    from sparsevit.latency.cuda_graphs import GraphedBackbone, record_graph
    from sparsevit.ops.window_kernels import without_kernels

    def with_ratios(call: Callable[[Tensor], Any]) -> Any:
        sparse.pruning_ratios = ratios
        return call(images)

    def eager(given: Tensor) -> Any:
        with without_kernels():
            return sparse(given)

    def record_eager(*recording: Any) -> Any:
        with without_kernels():
            return record_graph(*recording)

    def graphed(**options: Any) -> GraphedBackbone:
        return GraphedBackbone(sparse, capacity=1, copy_outputs=False, **options)

    yield "eager", functools.partial(with_ratios, eager)
    yield "eager + CUDA graph", functools.partial(with_ratios, graphed(record=record_eager))
    if kernels_in_use(sparse, images):
        yield "kernels", functools.partial(with_ratios, sparse)
        yield "kernels + CUDA graph", functools.partial(with_ratios, graphed())


def kernels_in_use(sparse: Any, images: Tensor) -> bool:
    from sparsevit.methods.windows.adapters.mmdet import view
    from sparsevit.methods.windows.routes.kernels import kernels_on_map

    with torch.inference_mode():
        return kernels_on_map(view(sparse.stages[0].blocks[0]), images) is not None


def compiled(swin: nn.Module, images: Tensor, mode: str) -> Callable[[], Any]:
    """The dense peer compiled for this size alone, and run until it is."""
    torch._dynamo.reset()
    started = time.perf_counter()
    model = torch.compile(swin, mode=mode, dynamic=False)
    for _ in range(3):
        model(images)
    wait()
    print(f"compiled in {time.perf_counter() - started:.0f} s", flush=True)
    return lambda: model(images)


def pictures(case: Case) -> Tensor:
    """Noise whose contrast differs from place to place, so that windows differ in their scores."""
    generator = torch.Generator().manual_seed(case.img_size + case.batch_size)
    coarse = torch.rand(case.batch_size, 1, 16, 16, generator=generator)
    contrast = F.interpolate(coarse, size=(case.img_size, case.img_size), mode="bicubic")
    noise = torch.randn(case.batch_size, 3, case.img_size, case.img_size, generator=generator)
    return noise * (0.1 + 2 * contrast.clamp_min(0) ** 2)


def gemm_gflops(device: str, dtype: torch.dtype) -> float:
    """Billions of operations a second in a large matrix product: what nothing here can beat."""
    rows, repeats = (8192, 10) if device == "cuda" else (64, 1)
    a = torch.randn(rows, rows // 2, device=device, dtype=dtype)
    b = torch.randn(rows // 2, rows, device=device, dtype=dtype)

    def products() -> None:
        for _ in range(repeats):
            a @ b

    fastest = min(interleave({"mm": products}, 5)["mm"])
    return repeats * 2 * rows * rows * (rows // 2) / (fastest * 1e-3) / 1e9


def rows(
    samples: dict[str, list[float]], macs: dict[str, float], rate: float, dense: str
) -> dict[str, Any]:
    """Figures by route; each against the dense peer, ours also against ours dense on that route."""
    found = {}
    for name, taken in samples.items():
        figure = summary(taken, against=samples[dense])
        own_dense = f"{name.rpartition(', ')[0]}, dense"
        if name.startswith("ours") and own_dense in samples:
            figure["speedup_over_own_dense"] = summary(taken, samples[own_dense])["speedup"]
        figure["gmacs"] = round(macs[name], 2)
        figure["gemm_floor_ms"] = round(2 * macs[name] / rate * 1000, 3)
        found[name] = figure
        print(
            f"{name:<60}{figure['median_ms']:>9.3f} ms  {figure['speedup']:.2f}x"
            f"  floor {figure['gemm_floor_ms']:.3f} ms"
        )
    return found


def profile(calls: dict[str, Callable[[], Any]], arguments: argparse.Namespace) -> dict[str, Any]:
    """What the device spends its time on, in ours at cfg2: microseconds a call, longest first."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    on_cuda = torch.cuda.is_available()
    activity = ProfilerActivity.CUDA if on_cuda else ProfilerActivity.CPU
    found = {}
    for name, call in calls.items():
        if not (name.startswith("ours") and name.endswith("cfg2")) or "graph" in name:
            continue
        with profiler(activities=[activity]) as seen:
            for _ in range(5):
                call()
            wait()
        spent = {
            event.key: (event.self_device_time_total if on_cuda else event.self_cpu_time_total) / 5
            for event in seen.key_averages()
        }
        longest = sorted(spent.items(), key=lambda item: -item[1])[:15]
        found[name] = {key[:120]: round(us, 1) for key, us in longest}
        print(f"\n{name}: {sum(spent.values()):.0f} us on the device")
        for key, us in longest:
            print(f"{us:>10.1f} us  {key[:100]}")
    return found


if __name__ == "__main__":
    main()
