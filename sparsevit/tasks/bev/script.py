"""What a script finds by a BEVDet's file: six images and their cameras in, boxes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sparsevit.data.nuscenes.names import CAMERAS
from sparsevit.tasks.script import WRITE, Finding, NoScript, drawing

_SHOWN = 0.3
"""Least score of a box that is shown."""

_FIND = '''
def read_cameras(path: str) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Image, intrinsics (3, 3) and pose (4, 4), from the camera to the lidar, of each camera.

    From a JSON list of {"image": FILE, "intrinsic": [...], "camera_to_lidar": [...]}, in the order
    of CAMERAS; files are found from its folder.
    """
    try:
        listed = json.loads(Path(path).read_text(encoding="utf-8"))
        files = [str(Path(path).parent / one["image"]) for one in listed]
        inner = [np.float32(one["intrinsic"]).reshape(3, 3) for one in listed]
        poses = [np.float32(one["camera_to_lidar"]).reshape(4, 4) for one in listed]
    except (OSError, ValueError, KeyError, TypeError):
        files = []
    if len(files) != len(CAMERAS):
        stop(
            f"{path} is no list of {len(CAMERAS)} cameras, each with image, intrinsic and "
            "camera_to_lidar."
        )
    return list(zip(map(read, files), inner, poses))


def find(run, cameras: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> list[dict]:
    """Boxes: score, class and box (x, y, z, w, l, h in m, yaw, vx, vy) in the lidar's frame."""
    prepared = [prepare(image) for image, _, _ in cameras]
    given = (
        [pixels for pixels, _ in prepared],
        [pose[:3, :3] for _, _, pose in cameras],
        [pose[:3, 3] for _, _, pose in cameras],
        [intrinsic for _, intrinsic, _ in cameras],
        [np.diag([scale, scale, 1]) for _, (scale, _, _) in prepared],
        [(-left, -top, 0) for _, (_, left, top) in prepared],
    )
    maps = run(*(np.repeat(np.float32(one)[None], BATCH, axis=0) for one in given))
    named = dict(zip(OUTPUTS, (one[0] for one in maps)))
    found = [one for number in range(len(TASKS)) for one in find_task(number, named)]
    return sorted(found, key=lambda one: -one["score"])


def find_task(number: int, maps: dict[str, np.ndarray]) -> list[dict]:
    """Boxes of a task of the head, without those that repeat others."""
    task = TASKS[number]
    names = ("heatmap", "reg", "height", "dim", "rot", "vel")
    heat, *code = (maps[f"task{number}_{name}"] for name in names)
    scores = 1 / (1 + np.exp(-heat))
    best = np.argsort(-scores, axis=None, kind="stable")[:MOST]
    best = best[scores.flat[best] > LEAST_SCORE]
    labels, rows, columns = np.unravel_index(best, scores.shape)
    within, z, size, turn, velocity = (one[:, rows, columns] for one in code)
    centre = (np.stack([columns, rows]) + within) * np.c_[CELL] + np.c_[CORNER]
    boxes = np.concatenate([centre, z, np.exp(size), np.arctan2(*turn)[None], velocity]).T
    inside = (boxes[:, :3] >= RANGE[:3]) & (boxes[:, :3] <= RANGE[3:])
    found = []
    for index in np.flatnonzero(inside.all(axis=1))[: task["looked_at"]]:
        one = boxes[index]
        compared = one[[0, 1, 3, 4, 6]] * [1, 1, *[task["scale"][labels[index]]] * 2, 1]
        if not any(repeats(task, compared, other["compared"]) for other in found):
            name = task["classes"][labels[index]]
            score = scores.flat[best[index]]
            found.append({"score": score, "class": name, "box": one, "compared": compared})
    return found[: task["kept"]]


def repeats(task: dict, one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two boxes, x, y, w, l and yaw from above, are too near to be two objects."""
    if task["nms"] == "circle":
        return np.square(one[:2] - other[:2]).sum() <= task["threshold"]
    corners = cv2.rotatedRectangleIntersection(rectangle(one), rectangle(other))[1]
    shared = 0 if corners is None else cv2.contourArea(cv2.convexHull(corners))
    return shared > task["threshold"] * (one[2] * one[3] + other[2] * other[3] - shared)


def rectangle(box: np.ndarray) -> tuple:
    x, y, width, length, yaw = box.tolist()
    return (x, y), (width, length), -math.degrees(yaw)


def show(cameras: list[tuple[np.ndarray, np.ndarray, np.ndarray]], found: list[dict]) -> np.ndarray:
    """Prints boxes, and draws them from above: x to the right, y up, the lidar in the middle."""
    side, scale = 800, 400 / max(abs(RANGE[0]), abs(RANGE[4]))
    picture = np.full((side, side, 3), 255, np.uint8)
    cv2.circle(picture, (side // 2, side // 2), 4, (0, 0, 0), -1)
    for one in found:
        x, y, z, width, length, height, yaw, vx, vy = one["box"]
        print(
            f"{one['score']:.3f}  {one['class']!r}  x {x:.1f} y {y:.1f} z {z:.1f} m  "
            f"{width:.1f} x {length:.1f} x {height:.1f} m  yaw {yaw:.2f}  {vx:.1f} {vy:.1f} m/s"
        )
        corners = cv2.boxPoints(rectangle(one["box"][[0, 1, 3, 4, 6]]))
        pixels = (corners * [scale, -scale] + side / 2).round().astype(np.int32)
        cv2.polylines(picture, [pixels], True, (200, 60, 0), 2)
        write(picture, one["class"], pixels[0].tolist(), [0, 0, 0])
    return picture
'''


def finding(model: Any, described: Mapping[str, Any]) -> Finding:
    """See :meth:`sparsevit.tasks.Task.finding`."""
    head = model.pts_bbox_head
    coder, tested = head.bbox_coder, head.test_cfg
    limits = tested.get("post_center_limit_range")
    if not head.norm_bbox or (limits and list(limits) != list(coder.post_center_range or ())):
        raise NoScript("the head's settings are not those of BEVDet's configs")
    tasks = [_task(head, number) for number in range(len(head.class_names))]
    constants = {
        "CAMERAS": list(CAMERAS),
        "OUTPUTS": [one["name"] for one in described["outputs"]],
        "TASKS": tasks,
        "LEAST_SCORE": _SHOWN,
        "MOST": int(coder.max_num),
        "CELL": [float(side) * coder.out_size_factor for side in coder.voxel_size[:2]],
        "CORNER": [float(value) for value in coder.pc_range[:2]],
        "RANGE": [float(one) for one in coder.post_center_range or (*[-1e3] * 3, *[1e3] * 3)],
    }
    return Finding(
        _FIND + WRITE,
        imports=("import json", "import math"),
        constants=constants,
        what="the boxes around a car, in six images",
        main=drawing("read_cameras", "CAMERAS.json"),
    )


def _task(head: Any, number: int) -> dict[str, Any]:
    """What is a task's own of what a head does with boxes."""
    classes, tested = head.class_names[number], head.test_cfg
    circle = head.of_task("nms_type", number) == "circle"
    factor = 1.0 if circle else head.of_task("nms_rescale_factor", number, 1.0)
    factors = factor if isinstance(factor, Sequence) else [factor] * len(classes)
    return {
        "classes": [str(name) for name in classes],
        "nms": "circle" if circle else "rotate",
        "threshold": float(head.of_task("min_radius" if circle else "nms_thr", number)),
        "scale": [float(one) for one in factors],
        "looked_at": None if circle else tested["pre_max_size"],
        "kept": tested["post_max_size"],
    }
