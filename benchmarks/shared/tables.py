"""The README's results, made from the files in ``benchmarks/results/``.

python benchmarks/shared/tables.py           # rewrites the part between the results marks
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- results -->", "<!-- /results -->"


def main() -> None:
    readme = ROOT / "README.md"
    readme.write_text(with_results(readme.read_text()))


def with_results(text: str) -> str:
    """A README with its results brought up to date."""
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    parts = [backbone(load("backbone")), demo(load("demo")), ops(load("ops"))]
    return head + BEGIN + "\n" + "\n".join(parts) + END + tail


def load(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def backbone(result: Mapping[str, Any]) -> str:
    """Backbones side by side."""
    size, rows = result["img_size"], result["results"]
    lines = [
        f"**Backbone.** Swin-T, batch {result['batch_size']}, {size}x{size}, fp32, eager; median "
        "milliseconds, and in brackets how many times as fast as mmdet's dense Swin, of calls that"
        f" took turns ({provenance(result, 'backbone')}).",
        "",
        "| ratios | GMACs | mmdet | the paper's algorithm, plain | sparsevit |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name in ("dense", "cfg1", "cfg2", "cfg3", "60%"):
        dense = f"{rows['mmdet dense']['median_ms']:.0f}" if name == "dense" else ""
        ours, plain = rows[f"ours {name}"], rows[f"paper's {name}"]
        label = "60% everywhere" if name == "60%" else name
        lines.append(
            f"| {label} | {ours['gmacs']:.1f} | {dense} | {timed(plain)} | **{timed(ours)}** |"
        )
    return "\n".join(lines) + "\n"


def demo(result: Mapping[str, Any]) -> str:
    """The demo's summary."""
    height, width = result["img_size"]
    lines = [
        f"**Demo.** Mask R-CNN with a small Swin on the generated dataset, batch "
        f"{result['batch_size']} of {width}x{height}, {result['seconds'] / 60:.0f} minutes in all "
        f"({provenance(result, 'demo')}).",
        "",
        "| model | backbone ms | speedup | detector ms | speedup | bbox AP | mask AP |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    if "note" in result:
        lines[0] += " " + result["note"]
    for row in result["rows"]:
        lines.append(
            f"| {row['name']} | {row['backbone_ms']:.1f} | {row['backbone_speedup']:.2f}x | "
            f"{row['detector_ms']:.1f} | {row['detector_speedup']:.2f}x | {row['bbox_ap']:.3f} | "
            f"{row['segm_ap']:.3f} |"
        )
    return "\n".join(lines) + "\n"


def ops(result: Mapping[str, Any]) -> str:
    """The two ops with a figure to beat."""
    rows = result["results"]
    align = rows["roi_align forward, 1000 RoIs, 1-150 px"]["median_ms"]
    nms = rows["nms, 1000 boxes, few overlap"]["median_ms"]
    compiled = result["compiled_mmcv_roi_align_forward_ms"]
    return (
        "**Ops without compiled mmcv.** RoIAlign of 1000 RoIs up to 150 px wide from a 256 x 168 x "
        f"168 map, adaptive sampling: {align:.0f} ms (compiled mmcv on such a machine: "
        f"{compiled:.0f} ms). NMS of 1000 boxes: {nms:.1f} ms ({provenance(result, 'ops')}).\n"
    )


def timed(row: Mapping[str, Any]) -> str:
    return f"{row['median_ms']:.0f} ({row['speedup']:.2f}x)"


def provenance(result: Mapping[str, Any], name: str) -> str:
    machine = result["machine"]
    return (
        f"{machine['device']}, {machine['threads']} threads, torch {result['versions']['torch']}, "
        f"`{result['command']}`, "
        f"[{name}.json](benchmarks/results/{name}.json)"
    )


if __name__ == "__main__":
    main()
