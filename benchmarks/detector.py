"""Mask R-CNN with Swin-T part by part: mmdet's dense backbone and ours, and what selection costs.

    python benchmarks/detector.py                   # writes benchmarks/results/detector.json
    python benchmarks/detector.py --img-size 448 --rounds 3 --output -

Eager, in fp32, on images of the generated dataset. Weights are random, with class scores spread so
that the heads have all the work that the test settings allow. Selection is the calls that decide
which windows a block works on: scores, top-k, and the lists of the tokens of the kept windows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from shared.detectors import backbone_of, build_pair, spread_class_scores, test_batch
from shared.parts import REST, at_ratios, parts_of, shares, split_in_turn
from shared.record import account, summary, write
from shared.stopwatch import Part
from shared.swin import CONFIGURATIONS, backbones, random_images

import sparsevit.methods.windows.forward as forward
from sparsevit.ops import mmcv_ext

PEER = "mmdet dense"
SHOWN = ("dense", "cfg2", "60%")
PARTS = (
    ("preprocessing", "data_preprocessor", "forward"),
    ("backbone", "backbone", "forward"),
    ("FPN", "neck", "forward"),
    ("RPN head", "rpn_head", "forward"),
    ("RPN proposals and NMS", "rpn_head", "predict_by_feat"),
    ("RoIAlign, boxes", "roi_head.bbox_roi_extractor", "forward"),
    ("box head", "roi_head.bbox_head", "forward"),
    ("boxes and NMS", "roi_head.bbox_head", "predict_by_feat"),
    ("RoIAlign, masks", "roi_head.mask_roi_extractor", "forward"),
    ("mask head", "roi_head.mask_head", "forward"),
    ("masks pasted", "roi_head.mask_head", "predict_by_feat"),
)
# Everything in a forward that a dense Swin has not: scores, ranking, and where kept tokens lie.
SELECTION: tuple[Part, ...] = (
    ("scores and windows kept", forward.Stage, "kept"),
    ("where they lie", forward, "locate"),
    ("where all lie", forward, "all_windows"),
    ("partition", forward, "window_layout"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--img-size", type=int, default=672)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", help="JSON file, or - for none")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    told = account()
    detectors = time_detectors(arguments)
    selection = time_selection(arguments)
    result = {
        **told,
        "img_size": arguments.img_size,
        "batch_size": arguments.batch_size,
        "ops": mmcv_ext.describe(),
        "results": detectors,
        "selection": selection,
    }
    write("detector", result, arguments.output)


def time_detectors(arguments: argparse.Namespace) -> dict[str, Any]:
    """Each detector in turn, its parts timed from within."""
    dense, sparse = build_pair()
    batch = test_batch(arguments.img_size, arguments.batch_size)
    spread_class_scores(dense, batch)
    sparse.load_state_dict(dense.state_dict())
    calls: dict[str, Callable[[], Any]] = {PEER: lambda: dense.test_step(batch)}
    parts = {PEER: parts_of(dense, PARTS)}
    for name in SHOWN:
        calls[f"ours {name}"] = at_ratios(
            backbone_of(sparse), CONFIGURATIONS[name], lambda: sparse.test_step(batch)
        )
        parts[f"ours {name}"] = parts_of(sparse, PARTS)
    found = {name: [len(one.pred_instances) for one in call()] for name, call in calls.items()}
    samples = split_in_turn(calls, parts, arguments.rounds)
    results = {}
    for name, taken in samples.items():
        row = summary(taken[""], against=samples[PEER][""])
        split = shares(taken)
        results[name] = {**row, "detections": found[name], "parts": split}
        print(f"\n{name}: {row['median_ms']:.1f} ms, {row['speedup']:.2f}x, {found[name]} found")
        for part, figure in split.items():
            print(f"  {part:<24}{figure['median_ms']:>9.2f} ms  {figure['share']:>6.1%}")
    return results


def time_selection(arguments: argparse.Namespace) -> dict[str, Any]:
    """What deciding which windows to work on costs of a backbone's time."""
    _, sparse = backbones()
    images = random_images(arguments.batch_size, arguments.img_size)
    names = [name for name in SHOWN if name != "dense"]
    calls = {
        name: at_ratios(sparse, CONFIGURATIONS[name], lambda: sparse(images)) for name in names
    }
    samples = split_in_turn(calls, dict.fromkeys(calls, SELECTION), arguments.rounds)
    results = {}
    for name, taken in samples.items():
        row = summary(taken[""])
        split = shares(taken)
        split.pop(REST)
        share = sum(part["share"] for part in split.values())
        results[name] = {**row, "selection_share": round(share, 5), "parts": split}
        print(f"\nselection at {name}: {share:.2%} of the backbone's {row['median_ms']:.1f} ms")
        for part, figure in split.items():
            print(f"  {part:<24}{figure['median_ms']:>9.3f} ms  {figure['share']:>6.2%}")
    return results


if __name__ == "__main__":
    main()
