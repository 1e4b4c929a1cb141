"""What nuScenes calls things: classes, categories, attributes, cameras, splits."""

from __future__ import annotations

CLASSES = (
    "car",
    "truck",
    "construction_vehicle",
    "bus",
    "trailer",
    "barrier",
    "motorcycle",
    "bicycle",
    "pedestrian",
    "traffic_cone",
)
"""The ten classes of the detection benchmark, in the order of BEVDet's heads."""

CLASS_OF_CATEGORY = {
    "vehicle.car": "car",
    "vehicle.truck": "truck",
    "vehicle.construction": "construction_vehicle",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.trailer": "trailer",
    "movable_object.barrier": "barrier",
    "vehicle.motorcycle": "motorcycle",
    "vehicle.bicycle": "bicycle",
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.police_officer": "pedestrian",
    "movable_object.trafficcone": "traffic_cone",
}
"""Categories of annotations that count as a class; those of other categories are left out."""

BICYCLE_RACK = "static_object.bicycle_rack"

CAMERAS = (
    "CAM_FRONT_LEFT",
    "CAM_FRONT",
    "CAM_FRONT_RIGHT",
    "CAM_BACK_LEFT",
    "CAM_BACK",
    "CAM_BACK_RIGHT",
)
"""In the order of BEVDet's configs."""

LIDAR = "LIDAR_TOP"

RANGES = {
    "car": 50.0,
    "truck": 50.0,
    "construction_vehicle": 50.0,
    "bus": 50.0,
    "trailer": 50.0,
    "barrier": 30.0,
    "motorcycle": 40.0,
    "bicycle": 40.0,
    "pedestrian": 40.0,
    "traffic_cone": 30.0,
}
"""How far from the car a box counts, in metres (``detection_cvpr_2019``)."""

_VEHICLES = ("car", "truck", "construction_vehicle", "bus", "trailer")
_STILL = {
    **dict.fromkeys(_VEHICLES, "vehicle.parked"),
    "bus": "vehicle.stopped",
    "motorcycle": "cycle.without_rider",
    "bicycle": "cycle.without_rider",
    "pedestrian": "pedestrian.standing",
}
_MOVING = {
    **dict.fromkeys(_VEHICLES, "vehicle.moving"),
    "motorcycle": "cycle.with_rider",
    "bicycle": "cycle.with_rider",
    "pedestrian": "pedestrian.moving",
}
_LEAST_SPEED = 0.2


def attribute_of(name: str, speed: float) -> str:
    """The attribute that follows from a class and a speed in m/s, as in BEVDet; ``""`` for none."""
    return (_MOVING if speed > _LEAST_SPEED else _STILL).get(name, "")


# The benchmark's validation scenes (nuscenes.utils.splits): first and last numbers of runs.
_VAL_RUNS = (
    *((3, 3), (12, 18), (35, 36), (38, 39), (92, 110), (221, 221), (268, 278), (329, 332)),
    *((344, 346), (519, 524), (552, 565), (625, 627), (629, 630), (632, 638), (770, 771)),
    *((775, 775), (777, 778), (780, 784), (794, 800), (802, 802), (904, 917), (919, 931)),
    *((962, 963), (966, 969), (971, 972), (1059, 1073)),
)
VALIDATION_SCENES = {
    "v1.0-trainval": frozenset(
        f"scene-{n:04d}" for first, last in _VAL_RUNS for n in range(first, last + 1)
    ),
    "v1.0-mini": frozenset({"scene-0103", "scene-0916"}),
}
"""Version -> names of its validation scenes; its other scenes are for training."""
