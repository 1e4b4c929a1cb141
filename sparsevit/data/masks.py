"""Masks as COCO writes them, exact: decoding gives back every pixel.

A polygon runs along pixel borders (corners in whole numbers), not through pixel centres, because
that is what pycocotools rasterises without loss.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# Headings clockwise: east, south, west, north (y points down).
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))
# Right, straight on, left.
_TURNS = (1, 0, 3)

Loop = list[tuple[int, int]]


def encode(visible: np.ndarray, left: int, top: int, size: tuple[int, int], form: str) -> dict:
    """The mask-related entries of a COCO annotation.

    Args:
        visible: (h, w) bool, at least one pixel set.
        left, top: where ``visible`` begins in the image.
        size: height and width of the image.
        form: ``polygon``, ``rle``, or ``mixed`` (a polygon if one without a hole is enough).

    Returns:
        ``segmentation``, ``area`` (pixels), ``bbox`` (x, y, width, height in pixels).
    """
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    width, height = int(columns[-1]) - x + 1, int(rows[-1]) - y + 1
    return {
        "segmentation": _segmentation(visible, left, top, size, form),
        "area": int(visible.sum()),
        "bbox": [left + x, top + y, width, height],
    }


def polygons(mask: np.ndarray) -> list[Loop]:
    """Disjoint polygons that cover exactly the set pixels of ``mask`` (h, w).

    One may touch itself at a corner, but none crosses itself. A piece with a hole is cut in
    two through the hole, as COCO's polygons have no holes.
    """
    loops = boundary_loops(mask)
    holes = [loop for loop in loops if _signed_area(loop) < 0]
    if not holes:
        return loops
    across = [x for x, _ in holes[0]]
    cut = min(across) + max(1, (max(across) - min(across)) // 2)
    right = [[(x + cut, y) for x, y in loop] for loop in polygons(mask[:, cut:])]
    return polygons(mask[:, :cut]) + right


def boundary_loops(mask: np.ndarray) -> list[Loop]:
    """The borders of a mask's pieces, corner by corner.

    Args:
        mask: (h, w) bool.

    Returns:
        Closed loops of (x, y) pixel corners: clockwise around pieces (pixels that touch only at a
        corner are pieces of their own), counter-clockwise around holes.
    """
    exits = _border_edges(mask)
    loops = []
    while exits:
        start = next(iter(exits))
        loops.append(_follow(exits, start))
    return loops


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed RLE: lengths of runs of 0, 1, 0, ... down the columns of ``mask``."""
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    ends = np.concatenate([[0], changes, [mask.size]])
    counts = np.diff(ends)
    if counts[-1] == 0:
        counts = counts[:-1]
    return counts.tolist()


def _segmentation(
    visible: np.ndarray, left: int, top: int, size: tuple[int, int], form: str
) -> list[list[int]] | dict[str, Any]:
    if form != "rle":
        loops = polygons(visible) if form == "polygon" else boundary_loops(visible)
        if form == "polygon" or len(loops) == 1:
            return [[n for x, y in loop for n in (x + left, y + top)] for loop in loops]
    whole = np.zeros(size, bool)
    whole[top : top + visible.shape[0], left : left + visible.shape[1]] = visible
    return {"counts": run_lengths(whole), "size": list(size)}


def _border_edges(mask: np.ndarray) -> dict[tuple[int, int], list[int]]:
    """For every corner on a border: the headings in which a border leaves it, mask on the right."""
    padded = np.pad(mask, 1)
    inner = padded[1:-1, 1:-1]
    # A pixel's top border starts at its left upper corner and heads east, and so on clockwise.
    sides = (
        (inner & ~padded[:-2, 1:-1], (0, 0)),
        (inner & ~padded[1:-1, 2:], (1, 0)),
        (inner & ~padded[2:, 1:-1], (1, 1)),
        (inner & ~padded[1:-1, :-2], (0, 1)),
    )
    exits: dict[tuple[int, int], list[int]] = {}
    for heading, (border, (dx, dy)) in enumerate(sides):
        ys, xs = np.nonzero(border)
        for corner in zip((xs + dx).tolist(), (ys + dy).tolist(), strict=True):
            exits.setdefault(corner, []).append(heading)
    return exits


def _follow(exits: dict[tuple[int, int], list[int]], start: tuple[int, int]) -> Loop:
    """Takes one closed border out of ``exits`` and returns its corners.

    Where two borders cross, turning right stays with the same pixel; so pixels that touch only at
    a corner get loops of their own, and no loop crosses itself.
    """
    corner, heading = start, exits[start][0]
    edges: list[tuple[tuple[int, int], int]] = []
    while not edges or (corner, heading) != edges[0]:
        edges.append((corner, heading))
        corner = (corner[0] + _STEPS[heading][0], corner[1] + _STEPS[heading][1])
        ahead = exits[corner]
        heading = next(h for h in ((heading + turn) % 4 for turn in _TURNS) if h in ahead)
    for left_corner, taken in edges:
        exits[left_corner].remove(taken)
        if not exits[left_corner]:
            del exits[left_corner]
    headings = [heading for _, heading in edges]
    return [c for i, (c, heading) in enumerate(edges) if heading != headings[i - 1]]


def _signed_area(loop: Loop) -> int:
    """Twice the area, positive for a clockwise loop (y down)."""
    following = loop[1:] + loop[:1]
    return sum(x * v - u * y for (x, y), (u, v) in zip(loop, following, strict=True))
