"""The results in the README and in docs/, made from the files in ``benchmarks/results/``.

    python benchmarks/shared/tables.py           # rewrites what stands between the results marks

A region ``<!-- results NAME -->`` ... ``<!-- /results -->`` holds the table NAME of :data:`TABLES`;
the README's, without a name, holds those of :data:`README`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (
    ROOT / "README.md",
    ROOT / "docs" / "backends.md",
    ROOT / "docs" / "results.md",
    ROOT / "docs" / "sparsify.md",
)
DEMO = "Mask R-CNN with a small Swin on the generated dataset"
WHOLE = {"detection": "detector", "segmentation": "segmentor"}
SCORES = {"bbox_ap": "bbox AP", "segm_ap": "mask AP", "mIoU": "mIoU"}
REGION = re.compile(r"<!-- results ?(\w*) -->\n.*?<!-- /results -->", re.DOTALL)


def main() -> None:
    for page in PAGES:
        page.write_text(with_results(page.read_text(), page.parent))


def with_results(text: str, folder: Path = ROOT) -> str:
    """A page with its results brought up to date.

    Args:
        text: of the page.
        folder: where the page lies, for its links.
    """

    def region(match: re.Match[str]) -> str:
        names = [match[1]] if match[1] else [name for name in README if measured(name)]
        body = "\n".join(table(name) for name in names).replace(
            "(benchmarks/", f"({up(folder)}benchmarks/"
        )
        body = body.replace("(docs/", f"({up(folder)}docs/").replace("(../docs/", "(")
        return f"<!-- results{' ' if match[1] else ''}{match[1]} -->\n{body}<!-- /results -->"

    return REGION.sub(region, text)


def up(folder: Path) -> str:
    """From a page's folder to the root of the checkout."""
    return "../" * len(folder.relative_to(ROOT).parts)


def table(name: str) -> str:
    """The table of a file of results; where there is none yet, how to make it."""
    if not measured(name):
        return f"Not measured yet: `python benchmarks/{name}.py`.\n"
    return TABLES[name](load(name))


def measured(name: str) -> bool:
    return (RESULTS / f"{name}.json").exists()


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


def sparsify(result: Mapping[str, Any]) -> str:
    """Models of other libraries, dense as they come and made sparse."""
    lines = [
        "**Models of other libraries.** Batch 1, fp32, eager; median milliseconds, and in brackets "
        "how many times as fast as the library's dense model, of calls that took turns. Fixed: the "
        "share of the multiplications that no ratio touches, such as those of blocks that attend "
        f"to the whole map ({provenance(result, 'sparsify')}).",
        "",
        "| model | image | dense | `sparsify(model, 0.0)` | `sparsify(model, 0.6)` | fixed |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, found in result["results"].items():
        side, rows = found["img_size"], found["rows"]
        lines.append(
            f"| {name} | {side}x{side} | {rows['dense']['median_ms']:.0f} "
            f"| {timed(rows['ours dense'])} | **{timed(rows['ours 60%'])}** "
            f"| {found['share_fixed']:.0%} |"
        )
    return "\n".join(lines) + "\n"


def demo(result: Mapping[str, Any], name: str = "demo", of: str = DEMO) -> str:
    """The summary of a demo, on whatever data."""
    height, width = result["img_size"]
    rows, whole = result["rows"], WHOLE[result.get("task", "detection")]
    scores = {key: said for key, said in SCORES.items() if key in rows[0]}
    lines = [
        f"**Demo.** {of}, batch {result['batch_size']} of {width}x{height}, "
        f"{result['seconds'] / 60:.0f} minutes in all ({provenance(result, name)}).",
        "",
        f"| model | backbone ms | speedup | {whole} ms | speedup | {' | '.join(scores.values())} |",
        "| --- |" + " ---: |" * (4 + len(scores)),
    ]
    if "note" in result:
        lines[0] += " " + result["note"]
    for row in rows:
        found = (f"{row[key]:.{1 if row[key] > 1 else 3}f}" for key in scores)
        lines.append(
            f"| {row['name']} | {row['backbone_ms']:.1f} | {row['backbone_speedup']:.2f}x | "
            f"{row[f'{whole}_ms']:.1f} | {row[f'{whole}_speedup']:.2f}x | {' | '.join(found)} |"
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


def backends(result: Mapping[str, Any]) -> str:
    """Every backend and precision: dense peers, ours, and the floor of the products."""
    lines = [
        f"**Backends.** Swin-T, batch {result['batch_size']}, {result['img_size']}x"
        f"{result['img_size']}; median milliseconds, and in brackets how many times as fast as "
        "mmdet's dense Swin in the same backend and precision, of calls that took turns. Floor: the"
        " multiplications of dense, cfg2 and 60% everywhere alone, at the rate of products of the "
        f"model's shapes in the same run ({provenance(result, 'backends')}).",
        "",
        "| backend | mmdet dense | Hugging Face dense | dense | cfg2 | 60% | floor | cfg2, against "
        "mmdet dense in eager fp32 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for group in result["results"].values():
        rows = group["rows"]
        ours = [rows.get(f"ours {name}") for name in ("dense", "cfg2", "60%")]
        floors = [f"{row['gemm_floor_ms']:.0f}" if row else "-" for row in ours]
        cells = [
            f"`{group['backend']}` {group['precision']}",
            f"{rows['mmdet dense']['median_ms']:.0f}" if "mmdet dense" in rows else "-",
            cell(rows.get("Hugging Face dense")),
            *(f"**{cell(row)}**" if row else "-" for row in ours),
            " / ".join(floors),
            f"{ours[1]['speedup_over_eager_fp32']:.2f}x" if ours[1] else "-",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    errors = [
        f"{group['backend']} {max(one['most'] for one in group['agreement'].values()):.1%}"
        for group in result["results"].values()
        if group["precision"] != "fp32" and group["agreement"]
    ]
    lines += ["", "Outputs in fp32 were within 1e-3 of eager."]
    if errors:
        lines[-1] += (
            " Relative error of 99 of 100 tokens against eager fp32 at 16 bits, worst of a row: "
            f"{', '.join(errors)}."
        )
    if result["left_out"]:
        told = [f"{row} ({why})" for row, why in result["left_out"].items()]
        lines += ["", f"Left out: {'; '.join(told)}"]
    return "\n".join(lines) + "\n"


def kept_memory(result: Mapping[str, Any]) -> str:
    """The backends again, in short, in a process that keeps freed memory."""
    lines = [
        "**The same with freed memory kept**, for peers too "
        f"({provenance(result, 'backends_kept_memory')}).",
        "",
        "| backend | mmdet dense | Hugging Face dense | dense | cfg2 | 60% |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for group in result["results"].values():
        rows = group["rows"]
        peers = f"{rows['mmdet dense']['median_ms']:.0f} | {cell(rows.get('Hugging Face dense'))}"
        ours = [cell(rows.get(f"ours {name}")) for name in ("dense", "cfg2", "60%")]
        cells = " | ".join(f"**{one}**" for one in ours)
        lines.append(f"| `{group['backend']}` {group['precision']} | {peers} | {cells} |")
    return "\n".join(lines) + "\n"


def scaling(result: Mapping[str, Any]) -> str:
    """Time and memory against image size."""
    routes = result["results"]
    sizes = list(next(iter(routes.values())))
    lines = [
        f"**Image size.** Swin-T, batch {result['batch_size']}, fp32, eager; median milliseconds, "
        "milliseconds a megapixel, and MiB that a forward allocates at most, each backbone in a "
        f"process of its own, the processes taking turns ({provenance(result, 'scaling')}).",
        "",
        "| | "
        + " | ".join(f"{size}x{size}" for size in sizes)
        + " | ms ~ tokens^p | R2 of a line |",
        "| --- |" + " ---: |" * (len(sizes) + 2),
    ]
    for route, rows in routes.items():
        cells = [
            f"{row['median_ms']:.0f} ms, {row['ms_per_megapixel']:.0f}/Mpx, "
            f"{row['allocated_mib']:.0f} MiB"
            for row in rows.values()
        ]
        found = result["fits"].get(route)
        cells += [f"{found['exponent']:.2f}", f"{found['r2']:.4f}"] if found else ["-", "-"]
        lines.append(f"| {route} | {' | '.join(cells)} |")
    lines += ["", "![Milliseconds and peak memory against tokens](docs/images/scaling.png)"]
    return "\n".join(lines) + "\n"


def adaptation(result: Mapping[str, Any]) -> str:
    """A training iteration against the share of windows kept."""
    size, batch = result["img_size"], result["batch_size"]
    lines = [
        "**Adapting.** One training iteration (forward, backward, AdamW) with Swin-T, batch "
        f"{batch}, {size}x{size}, fp32; medians of calls that took turns, and the most memory "
        "allocated beside weights and the optimiser's state "
        f"({provenance(result, 'adaptation')}).",
        "",
        "| | ratios | windows kept | ms | of dense | MiB | of dense |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for scope, found in result["results"].items():
        for name, row in found["rows"].items():
            lines.append(
                f"| {scope} | {name} | {row['kept']:.0%} | {row['median_ms']:.0f} | "
                f"{row['ms_of_dense']:.0%} | {row['allocated_mib']:.0f} | "
                f"{row['memory_of_dense']:.0%} |"
            )
    lines.append("")
    for scope, found in result["results"].items():
        time, memory = found["fits"]["ms"], found["fits"]["memory"]
        lines.append(
            f"{scope.capitalize()}: of a dense iteration, time is {time['at_none']:.2f} + "
            f"{time['slope']:.2f} x kept (R2 {time['r2']:.3f}), memory {memory['at_none']:.2f} + "
            f"{memory['slope']:.2f} x kept (R2 {memory['r2']:.3f})."
        )
    lines += ["", "![Cost of an iteration against kept windows](docs/images/adaptation.png)"]
    return "\n".join(lines) + "\n"


def detector(result: Mapping[str, Any]) -> str:
    """Mask R-CNN part by part, and the selection's share of the backbone."""
    rows = result["results"]
    size, found = result["img_size"], rows["mmdet dense"]["detections"]
    lines = [
        f"**Whole detector.** Mask R-CNN with Swin-T, batch {result['batch_size']}, {size}x{size}, "
        f"fp32, eager, {sum(found)} objects found; median milliseconds and share of each part, "
        f"timed from within, of calls that took turns ({provenance(result, 'detector')}).",
        "",
        *_parts(rows),
        "",
    ]
    shares = [
        f"{one['selection_share']:.2%} at {name}" for name, one in result["selection"].items()
    ]
    lines.append(
        "Selection (scores, top-k, and the lists of the tokens of kept windows) takes "
        f"{' and '.join(shares)} of the backbone."
    )
    return "\n".join(lines) + "\n"


def segmentation(result: Mapping[str, Any]) -> str:
    """Backbone and whole segmentors."""
    return _in_runtimes(
        result,
        f"**Whole segmentor.** UPerNet and Mask2Former with Swin-T, batch {result['batch_size']}",
        "mmseg",
        "segmentation",
    )


def bev(result: Mapping[str, Any]) -> str:
    """Backbone and whole BEVDet."""
    return _in_runtimes(
        result, f"**Whole BEVDet.** With Swin-T, {result['cameras']} cameras", "mmdet", "bev"
    )


def _in_runtimes(result: Mapping[str, Any], of: str, library: str, name: str) -> str:
    """Backbone and whole models by runtime, then part by part.

    Args:
        result: of :mod:`shared.whole`.
        of: what was timed.
        library: whose dense model is the peer.
        name: of the result.
    """
    height, width = result["img_size"]
    timed_in = [one for one in result["results"].values() if "agreement" in one]
    routes = list(dict.fromkeys(name for one in timed_in for name in one["rows"]))[1:]
    lines = [
        f"{of}, {width}x{height}, fp32; median milliseconds of calls that took turns, and times as "
        f"fast as with {library}'s dense model in the same runtime ({provenance(result, name)}).",
        "",
        "| | " + " | ".join(routes) + " |",
        "| --- |" + " ---: |" * len(routes),
    ]
    for row, one in result["results"].items():
        if "agreement" in one:
            cells = " | ".join(cell(one["rows"].get(route)) for route in routes)
            lines.append(f"| {row} | {cells} |")
    for row, one in result["results"].items():
        if "agreement" not in one:
            lines += ["", f"{row}, in eager, timed from within:", "", *_parts(one["rows"])]
    if result["left_out"]:
        told = [f"{name} ({why})" for name, why in result["left_out"].items()]
        lines += ["", f"Left out: {'; '.join(told)}"]
    return "\n".join(lines) + "\n"


def _parts(rows: Mapping[str, Any]) -> list[str]:
    """A table of parts by route, with the whole in the last row."""
    lines = ["| part | " + " | ".join(rows) + " |", "| --- |" + " ---: |" * len(rows)]
    for part in next(iter(rows.values()))["parts"]:
        figures = [row["parts"][part] for row in rows.values()]
        cells = [f"{figure['median_ms']:.1f} ({figure['share']:.1%})" for figure in figures]
        lines.append(f"| {part} | {' | '.join(cells)} |")
    wholes = [f"**{row['median_ms']:.0f} ({row['speedup']:.2f}x)**" for row in rows.values()]
    return [*lines, f"| all | {' | '.join(wholes)} |"]


def search(result: Mapping[str, Any]) -> str:
    """Samplers: the best score after so many scored trials, and trials to the paper's best."""
    lines = [
        f"Mean of {result['seeds']} searches, on a table of {result['networks']} of the "
        f"{result['networks_of_the_space']} different networks in the demo's space "
        f"({provenance(result, 'search')}). In the last column the median of the scored trials "
        "that it took to the score that the paper's evolution ends with (its median after "
        f"{result['trials']}), and from the quickest tenth to the slowest.",
    ]
    for name, found in result["intervals"].items():
        to_reach = found["to_reach_the_reference"]
        counts = list(next(iter(found["samplers"].values()))["mean_at"])
        lines += [
            "",
            f"Interval {name} of the way from the sparsest to dense: {found['configurations']} "
            f"configurations, {found['networks']} different networks, the best {found['best']:.1f} "
            f"AP, the median {found['median']:.1f}.",
            "",
            f"| sampler | {' | '.join(f'AP after {at}' for at in counts)} "
            f"| trials to {to_reach['score']:.1f} AP |",
            f"| --- |{' ---: |' * (len(counts) + 1)}",
        ]
        for sampler, row in found["samplers"].items():
            scores = " | ".join(f"{score:.2f}" for score in row["mean_at"].values())
            trials = reached(to_reach["trials"][sampler], result)
            lines.append(f"| {sampler} | {scores} | {trials} |")
        for at in dict.fromkeys([counts[len(counts) // 2], counts[-1]]):
            gains = [
                f"{pair} {gain[at]['mean']:+.2f} ({gain[at]['ci95'][0]:+.2f} to "
                f"{gain[at]['ci95'][1]:+.2f})"
                for pair, gain in found["differences"].items()
            ]
            lines += ["", f"After {at} trials, with 95 % intervals: {'; '.join(gains)}."]
    if "live" in result:
        live = result["live"]
        lines += [
            "",
            f"On the model itself, {live['scored']} trials of the guided sampler "
            f"(`{live['command']}`): best {live['best']:.1f} AP; "
            f"{live['same_score_as_in_table']} of {live['compared']} scores are those of the "
            "table.",
        ]
    return "\n".join(lines) + "\n"


def reached(trials: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Trials to a score; of searches that did not get there, that it took more than all."""
    shown = [
        f"> {result['trials']}" if count > result["trials"] else f"{count:.0f}"
        for count in (trials["median"], trials["p10"], trials["p90"])
    ]
    return f"{shown[0]} ({shown[1]} to {shown[2]})"


def cell(row: Mapping[str, Any] | None) -> str:
    return timed(row) if row else "-"


def timed(row: Mapping[str, Any]) -> str:
    ratio = f" ({row['speedup']:.2f}x)" if "speedup" in row else ""
    return f"{row['median_ms']:.0f}{ratio}"


def provenance(result: Mapping[str, Any], name: str) -> str:
    machine, command = result["machine"], result["command"]
    if "--merge" in command:
        # row by row; the file has the command of each
        command = f"python benchmarks/{name}.py"
    threads = f"{machine['threads']} thread" + "s" * (machine["threads"] != 1)
    return (
        f"{machine['device']}, {threads}, torch {result['versions']['torch']}, `{command}`, "
        f"[{name}.json](benchmarks/results/{name}.json)"
    )


TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "backbone": backbone,
    "backends": backends,
    "backends_kept_memory": kept_memory,
    "scaling": scaling,
    "adaptation": adaptation,
    "detector": detector,
    "segmentation": segmentation,
    "bev": bev,
    "demo": demo,
    "demo_segmentation": partial(
        demo, name="demo_segmentation", of="UPerNet with a small Swin on the generated dataset"
    ),
    "demo_camvid": partial(
        demo,
        name="demo_camvid",
        of="UPerNet with a small Swin on CamVid, 11 classes, with `--data`, from scratch",
    ),
    "sparsify": sparsify,
    "ops": ops,
    "search": search,
}
README = ("backbone", "sparsify", "backends", "demo", "ops")


if __name__ == "__main__":
    main()
