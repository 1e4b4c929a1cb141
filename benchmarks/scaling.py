"""Swin-T backbones at growing image sizes: milliseconds and peak memory against tokens.

    python benchmarks/scaling.py                    # writes benchmarks/results/scaling.json
    python benchmarks/scaling.py --sizes 672 1344 --output -

Every backbone and size has a process of its own, so that its peak memory is its own. The processes
of one size take turns: one forward of each, again and again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from shared.fit import exponent, line
from shared.memory import peak_memory
from shared.record import account, summary, wait, write
from shared.swin import CONFIGURATIONS, backbones, random_images

PEER = "mmdet dense"
ROUTES = (PEER, "ours dense", "ours cfg2", "ours 60%")
PATCH = 4
ANSWER = "answer: "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[672, 1344, 2016, 2688])
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9, help="at 672; fewer where it takes longer")
    parser.add_argument("--output", help="JSON file, or - for none")
    parser.add_argument("--worker", choices=ROUTES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments.sizes[0], arguments.batch_size)
        return
    told = account()
    results: dict[str, dict[str, Any]] = {route: {} for route in ROUTES}
    for size in sorted(arguments.sizes):
        rounds = max(2, round(arguments.rounds * 672 / max(size, 672)))
        for route, row in measure(size, arguments.batch_size, rounds).items():
            results[route][str(size)] = row
    fits = {route: fit(rows) for route, rows in results.items() if len(rows) > 1}
    for route, found in fits.items():
        print(
            f"{route:<12}ms = {found['intercept_ms']:.0f} + "
            f"{found['ms_per_thousand_tokens']:.2f} per 1000 tokens, R2 {found['r2']:.4f}, "
            f"ms ~ tokens^{found['exponent']:.2f}, MiB ~ tokens^{found['memory_exponent']:.2f}"
        )
    write(
        "scaling",
        {**told, "batch_size": arguments.batch_size, "fits": fits, "results": results},
        arguments.output,
    )


def measure(size: int, batch_size: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Time and memory of every backbone at one size."""
    samples: dict[str, list[float]] = {route: [] for route in ROUTES}
    memory = {}
    with contextlib.ExitStack() as stack:
        workers = {}
        for route in ROUTES:
            workers[route] = stack.enter_context(worker(route, size, batch_size))
            memory[route] = ask(workers[route])
        for _ in range(rounds):
            for route, process in workers.items():
                samples[route].append(ask(process))
    tokens = batch_size * (size // PATCH) ** 2
    megapixels = batch_size * size**2 / 1e6
    rows = {}
    for route, times in samples.items():
        row = summary(times, against=samples[PEER])
        rows[route] = {
            "img_size": size,
            "tokens": tokens,
            **row,
            "ms_per_megapixel": round(row["median_ms"] / megapixels, 1),
            **memory[route],
        }
        print(
            f"{size:>5}  {route:<12}{row['median_ms']:>9.1f} ms  {row['speedup']:.2f}x  "
            f"{rows[route]['ms_per_megapixel']:>7.1f} ms/Mpx  "
            f"{rows[route]['allocated_mib']:>8.0f} MiB allocated",
            flush=True,
        )
    return rows


def fit(rows: dict[str, dict[str, Any]]) -> dict[str, float]:
    """The line through milliseconds against tokens, and the powers that both measures follow."""
    tokens = [row["tokens"] for row in rows.values()]
    times = [row["median_ms"] for row in rows.values()]
    memory = [row["allocated_mib"] for row in rows.values()]
    found = line(tokens, times)
    return {
        "intercept_ms": round(found.intercept, 3),
        "ms_per_thousand_tokens": round(1000 * found.slope, 4),
        "r2": round(found.r2, 5),
        "exponent": round(exponent(tokens, times), 4),
        "memory_exponent": round(exponent(tokens, memory), 4),
    }


@contextlib.contextmanager
def worker(route: str, size: int, batch_size: int) -> Iterator[subprocess.Popen[str]]:
    """A process that holds one backbone; it is gone when the context is left."""
    words = ["--worker", route, "--sizes", str(size), "--batch-size", str(batch_size)]
    process = subprocess.Popen(
        [sys.executable, __file__, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ask(process: subprocess.Popen[str]) -> Any:
    """The next answer of a worker."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    for told in process.stdout:
        # libraries print what they like
        if told.startswith(ANSWER):
            return json.loads(told.removeprefix(ANSWER))
    raise SystemExit(f"A process of the benchmark ended with code {process.wait()}; see above.")


def work(route: str, size: int, batch_size: int) -> None:
    """Answer every line of stdin: the first with peak memory, others with milliseconds."""
    torch.manual_seed(0)
    swin, sparse = backbones()
    model = swin if route == PEER else sparse
    if model is sparse:
        sparse.pruning_ratios = CONFIGURATIONS[route.removeprefix("ours ")]
    del swin, sparse
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, images = model.to(device), random_images(batch_size, size).to(device)

    def forward() -> None:
        with torch.no_grad():
            model(images)

    for count, _ in enumerate(sys.stdin):
        answer: Any
        if count == 0:
            answer = asdict(peak_memory(forward))
        else:
            wait()
            started = time.perf_counter()
            forward()
            wait()
            answer = round(1000 * (time.perf_counter() - started), 3)
        print(ANSWER + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
