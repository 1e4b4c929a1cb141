"""Swin-T backbones in every backend: dense peers and ours at three sparsities, paired.

    python benchmarks/backends.py                   # writes benchmarks/results/backends.json
    python benchmarks/backends.py --backends openvino --merge      # those rows alone, anew
    python benchmarks/backends.py --precisions bf16 --rounds 5 --output -

Within a backend and precision, one call of each in turn, mmdet's dense one in eager fp32 always
among them. Outputs are compared with eager fp32 first; what disagrees is not timed, and the exit
code is 1 in the end. What is not installed is left out, and said.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import torch
from shared.agreement import Agreement, agreement
from shared.floor import floor_ms, gemm_gflops, product_shapes
from shared.hugging_face import HuggingFaceSwin
from shared.record import account, destination, interleave, merged, summary, taken, write
from shared.swin import CONFIGURATIONS, SWIN_T, backbones, random_images

from sparsevit.errors import UserError
from sparsevit.latency.backends import BACKENDS, prepare
from sparsevit.latency.backends.base import DTYPES
from sparsevit.latency.cost import gmacs
from sparsevit.latency.memory import keep_freed_memory

REFERENCE = "mmdet eager fp32"
PEER = "mmdet dense"
SECOND_PEER = "Hugging Face dense"
# Its runtimes are given mmdet's graph already; as PyTorch code it is another program.
SECOND_PEER_IN = ("eager", "compile")
SHOWN = ("dense", "cfg2", "60%")
LARGEST_FP32 = 1e-3


class Benchmark:
    """The backbones, their images, and what eager fp32 says of them.

    Args:
        img_size, batch_size: of the images.
        rounds: samples of each call.
    """

    def __init__(self, img_size: int, batch_size: int, rounds: int) -> None:
        torch.manual_seed(0)
        self.swin, self.sparse = backbones()
        # two windows may score so nearly the same that rounding decides between them: then an
        # output is right if it agrees on another image
        self.images = [random_images(batch_size, img_size, seed) for seed in range(3)]
        self.rounds = rounds
        self.left_out: dict[str, str] = {}
        self.wrong: list[str] = []
        self.second: Any = None
        try:
            self.second = HuggingFaceSwin(self.swin, SWIN_T)
        except (ImportError, RuntimeError) as error:
            self.without_second = f"{error} (`pip install 'sparsevit[bench]'`)"
            print(f"{SECOND_PEER}: left out. {self.without_second}", flush=True)
        self.shapes = product_shapes(lambda: self.swin(self.images[0]))

    def measure(self, backend: str, precision: str) -> dict[str, Any] | None:
        """Times in one backend and precision; None where it cannot be had here."""
        name = f"{backend} {precision}"
        calls: dict[str, Callable[[], Any]] = {}
        macs: dict[str, float] = {}
        agreements: dict[str, Any] = {}
        missing: dict[str, str] = {}
        if self.second is None and backend in SECOND_PEER_IN:
            missing[SECOND_PEER] = self.without_second
        reference = prepare("eager", self.swin, self.images[0])
        calls[REFERENCE] = lambda: reference(self.images[0])
        macs[REFERENCE] = gmacs(calls[REFERENCE])
        for route, model in self._routes(backend):
            try:
                run = prepare(backend, model, self.images[0], precision)
                found = self._compare(run, model, precision, dense=route.endswith("dense"))
            except UserError as error:
                self.left_out[name] = str(error)
                print(f"{name}: left out. {error}", flush=True)
                return None
            except Exception as error:  # a compiler or converter raises whatever it likes
                missing[route] = self._wrong(name, route, f"{type(error).__name__}: {error}")
                continue
            agreements[route] = asdict(found)
            if not agrees(found, precision, route.endswith("dense")):
                missing[route] = self._wrong(name, route, f"disagrees with eager fp32: {found}")
                continue
            calls[route] = lambda run=run: run(self.images[0])
            macs[route] = self._gmacs(model)
        samples = interleave(calls, self.rounds)
        rate = gemm_gflops(self.shapes, DTYPES[precision])
        print(f"{name}: products at {rate:.0f} GFLOP/s", flush=True)
        return {
            "backend": backend,
            "precision": precision,
            "taken": taken(),
            "gemm_gflops": round(rate, 1),
            "agreement": agreements,
            "missing": missing,
            "rows": rows(samples, macs, rate),
        }

    def _routes(self, backend: str) -> Iterator[tuple[str, Any]]:
        """What is timed, each at the sparsity that it is then set to."""
        yield PEER, self.swin
        if self.second is not None and backend in SECOND_PEER_IN:
            yield SECOND_PEER, self.second
        for name in SHOWN:
            self.sparse.pruning_ratios = CONFIGURATIONS[name]
            yield f"ours {name}", self.sparse

    def _compare(self, run: Any, model: Any, precision: str, dense: bool) -> Agreement:
        """With mmdet's where dense, with ours in eager where sparse."""
        peer = self.swin if dense else model
        for images in self.images:
            with torch.no_grad():
                expected = peer(images)
            found = agreement(run(images), expected)
            if agrees(found, precision, dense) or dense:
                break
        return found

    def _gmacs(self, model: Any) -> float:
        with torch.no_grad():
            return gmacs(lambda: model(self.images[0]))

    def _wrong(self, name: str, route: str, why: str) -> str:
        self.wrong.append(f"{name}, {route}: {why[:500]}")
        print(f"{self.wrong[-1]}", flush=True)
        return why[:500]


def agrees(found: Agreement, precision: str, dense: bool) -> bool:
    """fp32 to 1e-3 in every value; 16 bits by the relative error of tokens."""
    if precision == "fp32":
        return found.absolute < LARGEST_FP32
    return found.holds(precision, dense)


def rows(
    samples: dict[str, list[float]], macs: dict[str, float], rate: float
) -> dict[str, dict[str, Any]]:
    """Figures by route, against the dense peer in the same backend and in eager fp32."""
    found = {}
    for name, times in samples.items():
        figure = summary(times, against=samples.get(PEER))
        figure["speedup_over_eager_fp32"] = summary(times, samples[REFERENCE])["speedup"]
        figure["gmacs"] = round(macs[name], 2)
        if name != REFERENCE:
            figure["gemm_floor_ms"] = round(floor_ms(macs[name], rate), 1)
        found[name] = figure
        print(
            f"  {name:<20}{figure['median_ms']:>9.1f} ms  {figure.get('speedup', 0):.2f}x  "
            f"{figure['speedup_over_eager_fp32']:.2f}x eager fp32  "
            f"floor {figure.get('gemm_floor_ms', 0):.0f} ms",
            flush=True,
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", default=list(BACKENDS), choices=list(BACKENDS))
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=list(DTYPES))
    parser.add_argument("--img-size", type=int, default=672)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument(
        "--keep-freed-memory",
        action="store_true",
        help="for peers too, as where `sparsevit latency` measures; else as PyTorch starts",
    )
    parser.add_argument("--merge", action="store_true", help="keep other rows of the file")
    parser.add_argument("--output", help="JSON file, or - for none")
    arguments = parser.parse_args()

    kept = arguments.keep_freed_memory and keep_freed_memory()
    benchmark = Benchmark(arguments.img_size, arguments.batch_size, arguments.rounds)
    results = {}
    for precision in arguments.precisions:
        for backend in arguments.backends:
            found = benchmark.measure(backend, precision)
            if found is not None:
                results[f"{backend} {precision}"] = found
    result: dict[str, Any] = {
        **account(),
        "img_size": arguments.img_size,
        "batch_size": arguments.batch_size,
        "keeps_freed_memory": kept,
        "left_out": benchmark.left_out,
        "results": results,
    }
    file = destination("backends", arguments.output)
    if arguments.merge and file.exists():
        result = merged(json.loads(file.read_text()), result, ("img_size", "batch_size"))
    write("backends", result, arguments.output)
    if benchmark.wrong:
        raise SystemExit("Not timed:\n" + "\n".join(benchmark.wrong))


if __name__ == "__main__":
    main()
