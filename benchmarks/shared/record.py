"""A benchmark's account of itself: machine, versions, command, every sample."""

from __future__ import annotations

import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# as the command line does; see sparsevit.cli.main
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch

RESULTS = Path(__file__).parents[1] / "results"
PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "onedl-mmcv",
    "onedl-mmdetection",
    "onedl-mmsegmentation",
    "onedl-mmengine",
    "transformers",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "triton",
    "sparsevit",
)


# What has to be the same for figures to stand in one file.
_SAME = ("device", "cores", "threads")


def account() -> dict[str, Any]:
    """What a reader needs to repeat a measurement."""
    return {
        "command": shlex.join(["python", *sys.argv]),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {
            "device": device_name(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load_average": [round(load, 2) for load in os.getloadavg()],
            "system": platform.platform(),
        },
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def device_name() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def taken() -> dict[str, Any]:
    """When and how a part of a file was measured that other runs measured the rest of."""
    told = account()
    return {
        "command": told["command"],
        "date": told["date"],
        "load_average": told["machine"]["load_average"],
        "versions": told["versions"],
    }


def merged(
    earlier: Mapping[str, Any], result: Mapping[str, Any], settings: Sequence[str]
) -> dict[str, Any]:
    """A result, with the parts of an earlier one that it did not measure again.

    Args:
        earlier, result: with ``results`` and ``left_out`` by part.
        settings: keys that must be the same in both, beside the machine.

    Raises:
        SystemExit: they were not measured alike, so they are not to be compared.
    """
    told = [(f"machine.{key}", earlier["machine"][key], result["machine"][key]) for key in _SAME]
    told += [(key, earlier[key], result[key]) for key in settings]
    other = [f"{name} was {then!r} and is {now!r}" for name, then, now in told if then != now]
    if other:
        raise SystemExit(f"Not merged with the earlier file: {'; '.join(other)}.")
    new = {*result["results"], *result["left_out"]}
    return {
        **result,
        **{
            part: {
                **{name: found for name, found in earlier[part].items() if name not in new},
                **result[part],
            }
            for part in ("results", "left_out")
        },
    }


def interleave(
    calls: Mapping[str, Callable[[], Any]], rounds: int, warmup: int = 2, untimed: int = 1
) -> dict[str, list[float]]:
    """Milliseconds of each call: one of each in turn, so that drift hits all alike.

    Args:
        calls: by name.
        rounds: samples of each.
        warmup: calls of each before the first round.
        untimed: calls right before each timed one, so that none pays for another's caches; 0 where
            a call takes so long that this does not matter.
    """
    for _ in range(warmup):
        for call in calls.values():
            call()
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            for _ in range(untimed):
                call()
            wait()
            start = time.perf_counter()
            call()
            wait()
            samples[name].append(1000 * (time.perf_counter() - start))
    return samples


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def summary(samples_ms: list[float], against: list[float] | None = None) -> dict[str, Any]:
    """Median, spread and every sample; with ``against``, how many times as fast, round by round."""
    low, median, high = statistics.quantiles(samples_ms, n=4)
    figure: dict[str, Any] = {
        "median_ms": round(median, 3),
        "spread_ms": round(high - low, 3),
        "min_ms": round(min(samples_ms), 3),
        "max_ms": round(max(samples_ms), 3),
        "samples_ms": [round(sample, 3) for sample in samples_ms],
    }
    if against is not None:
        ratios = [peer / own for peer, own in zip(against, samples_ms, strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        figure["speedup"] = round(median, 3)
        figure["speedup_spread"] = [round(low, 3), round(high, 3)]
    return figure


def destination(name: str, output: str | None = None) -> Path:
    """``benchmarks/results/NAME.json``, or where the caller wants it."""
    return Path(output) if output else RESULTS / f"{name}.json"


def write(name: str, result: Mapping[str, Any], output: str | None = None) -> None:
    """Write the figures to ``benchmarks/results/NAME.json``, or elsewhere, or (``-``) nowhere."""
    if output == "-":
        return
    path = destination(name, output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written to {path}")
