"""The detection metrics of nuScenes: AP by distance of centres, five errors, NDS.

Defined in arXiv:1903.11027, section 4, and in the detection benchmark's description; settings are
those of ``detection_cvpr_2019``. nuscenes-devkit computes the same: it asks for numpy 1 and a build
of OpenCV of its own, so it cannot be a requirement of this package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sparsevit.data.nuscenes import geometry
from sparsevit.data.nuscenes.names import CLASSES, RANGES
from sparsevit.data.nuscenes.tables import Annotations

DISTANCES = (0.5, 1.0, 2.0, 4.0)
"""Between centres on the ground that still match, in metres."""
MOST_BOXES = 500
"""In a sample."""
ERRORS = {"trans": "mATE", "scale": "mASE", "orient": "mAOE", "vel": "mAVE", "attr": "mAAE"}

_OF_ERRORS = DISTANCES.index(2.0)
_LEAST_RECALL, _LEAST_PRECISION = 0.1, 0.1
_RECALLS = np.linspace(0, 1, 101)
_FIRST = round(100 * _LEAST_RECALL) + 1
_AP_WEIGHT = 5
# cones look the same from all sides; neither they nor barriers move
_NO_ERROR = {
    ("traffic_cone", "orient"),
    *((name, error) for name in ("traffic_cone", "barrier") for error in ("vel", "attr")),
}


@dataclass(frozen=True)
class Boxes:
    """Boxes of one sample in the world, found or annotated.

    Attributes:
        names: (n) classes.
        centres, sizes: (n, 3) metres.
        yaws: (n,) headings in radians.
        velocities: (n, 2) m/s.
        attributes: (n) names.
        scores: (n,); of annotated ones anything.
    """

    names: np.ndarray
    centres: np.ndarray
    sizes: np.ndarray
    yaws: np.ndarray
    velocities: np.ndarray
    attributes: np.ndarray
    scores: np.ndarray

    def __getitem__(self, which: np.ndarray) -> Boxes:
        return Boxes(*(getattr(self, name)[which] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Scores:
    """What :func:`score` found.

    Attributes:
        ap: class -> AP, the mean over :data:`DISTANCES`.
        ap_at: class -> AP at each distance.
        errors: class -> error (a key of :data:`ERRORS`) -> its mean; NaN where it means nothing.
        metrics: ``NDS``, ``mAP``, ``mATE``, ``mASE``, ``mAOE``, ``mAVE``, ``mAAE``.
    """

    ap: Mapping[str, float]
    ap_at: Mapping[str, tuple[float, ...]]
    errors: Mapping[str, Mapping[str, float]]
    metrics: Mapping[str, float]


def annotated(notes: Annotations, car: np.ndarray) -> Boxes:
    """The annotated boxes of a sample that count: with points, and as :func:`countable` says.

    Args:
        notes: of the sample.
        car: (3,) where it is in the world.
    """
    boxes = Boxes(
        names=np.array(notes.names, object),
        centres=notes.centres,
        sizes=notes.sizes,
        yaws=geometry.headings(geometry.rotation_matrices(notes.rotations)),
        velocities=notes.velocities,
        attributes=np.array(notes.attributes, object),
        scores=np.zeros(len(notes.names)),
    )
    return boxes[(notes.points > 0) & countable(boxes, car, notes.racks)]


def countable(boxes: Boxes, car: np.ndarray, racks: np.ndarray) -> np.ndarray:
    """(n,) which boxes are within their class's range of the car, and no cycle in a rack for them.

    Args:
        boxes: in the world.
        car: (3,) where it is in the world.
        racks: (m, 10) of :class:`~sparsevit.data.nuscenes.tables.Annotations`.
    """
    ranges = np.array([RANGES[name] for name in boxes.names])
    near: np.ndarray = np.sqrt(((boxes.centres - car)[:, :2] ** 2).sum(axis=1)) < ranges
    cycle = np.isin(boxes.names, ("bicycle", "motorcycle"))
    for rack in racks:
        turn = geometry.rotation_matrices(rack[6:])
        own = (boxes.centres - rack[:3]) @ turn  # x is along a box's length
        inside = (np.abs(own) <= rack[[4, 3, 5]] / 2).all(axis=1)
        near &= ~(cycle & inside)
    return near


def score(samples: Sequence[tuple[Boxes, Boxes]], classes: Sequence[str] = CLASSES) -> Scores:
    """Scores detections.

    Args:
        samples: for each sample the boxes that are annotated and those that were found, both as
            :func:`countable` leaves them, at most :data:`MOST_BOXES` found ones.
        classes: over which means are taken. One that is not annotated anywhere has AP 0 and errors
            1.
    """
    found = {name: _of_class(samples, name) for name in classes}
    ap_at = {name: aps for name, (aps, _) in found.items()}
    errors = {name: of_class for name, (_, of_class) in found.items()}
    ap = {name: float(np.mean(aps)) for name, aps in ap_at.items()}
    mean_ap = float(np.mean(list(ap.values())))
    means = {said: _mean([errors[name][key] for name in classes]) for key, said in ERRORS.items()}
    good = [max(0.0, 1 - value) for value in means.values()]
    nds = (_AP_WEIGHT * mean_ap + sum(good)) / (_AP_WEIGHT + len(good))
    return Scores(ap, ap_at, errors, {"NDS": nds, "mAP": mean_ap, **means})


def _mean(values: Sequence[float]) -> float:
    """Of those that are numbers; 1 where none is."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else 1.0


def _of_class(
    samples: Sequence[tuple[Boxes, Boxes]], name: str
) -> tuple[tuple[float, ...], dict[str, float]]:
    """AP at each distance, and errors, of one class."""
    mine = [(real[real.names == name], found[found.names == name]) for real, found in samples]
    annotated_ones = sum(len(real.scores) for real, _ in mine)
    scores = np.concatenate([found.scores for _, found in mine] or [np.zeros(0)])
    # equal scores: the later first, as the devkit sorts
    order = np.lexsort((np.arange(len(scores)), scores))[::-1]
    partners = [_matches(real, found) for real, found in mine]
    aps, errors = [], dict.fromkeys(ERRORS, 1.0)
    for place in range(len(DISTANCES)):
        matched = np.concatenate([p[place] for p in partners] or [np.zeros(0, int)])[order] >= 0
        if not matched.any():
            aps.append(0.0)
            continue
        precision, confidence = _curve(matched, scores[order], annotated_ones)
        kept = np.clip(precision[_FIRST:] - _LEAST_PRECISION, 0, None)
        aps.append(float(np.mean(kept)) / (1 - _LEAST_PRECISION))
        if place == _OF_ERRORS:
            wrong = [
                _errors(real[p[place][p[place] >= 0]], found[p[place] >= 0], name)
                for (real, found), p in zip(mine, partners, strict=True)
            ]
            errors = {
                key: _mean_error(
                    _sorted_matches([one[key] for one in wrong], partners, place, order),
                    scores[order][matched],
                    confidence,
                )
                for key in ERRORS
            }
    for key in ERRORS:
        if (name, key) in _NO_ERROR:
            errors[key] = float("nan")
    return tuple(aps), errors


def _matches(real: Boxes, found: Boxes) -> np.ndarray:
    """For each distance, which annotated box a found one takes, or -1: the nearest that is left.

    Returns:
        (distances, n) indices.
    """
    partners = np.full((len(DISTANCES), len(found.scores)), -1)
    if not len(real.scores) or not len(found.scores):
        return partners
    away = found.centres[:, None, :2] - real.centres[None, :, :2]
    distance = np.sqrt((away**2).sum(axis=2))
    order = np.lexsort((np.arange(len(found.scores)), found.scores))[::-1]
    for row, most in zip(partners, DISTANCES, strict=True):
        left = np.where(distance < most, distance, np.inf)
        for box in order:
            nearest = int(left[box].argmin())
            if left[box, nearest] < most:
                row[box] = nearest
                left[:, nearest] = np.inf
    return partners


def _curve(
    matched: np.ndarray, scores: np.ndarray, annotated_ones: int
) -> tuple[np.ndarray, np.ndarray]:
    """Precision and score at each of 101 recalls, 0 beyond what is reached."""
    true, false = np.cumsum(matched).astype(float), np.cumsum(~matched).astype(float)
    recall, precision = true / annotated_ones, true / (true + false)
    return (
        np.interp(_RECALLS, recall, precision, right=0),
        np.interp(_RECALLS, recall, scores, right=0),
    )


def _errors(real: Boxes, found: Boxes, name: str) -> dict[str, np.ndarray]:
    """Errors of pairs."""
    period = np.pi if name == "barrier" else 2 * np.pi
    turned = (real.yaws - found.yaws + period / 2) % period - period / 2
    volumes = real.sizes.prod(axis=1), found.sizes.prod(axis=1)
    common = np.minimum(real.sizes, found.sizes).prod(axis=1)
    same = (real.attributes == found.attributes).astype(float)
    return {
        "trans": np.linalg.norm((real.centres - found.centres)[:, :2], axis=1),
        "scale": 1 - common / (volumes[0] + volumes[1] - common),
        "orient": np.abs(turned),
        "vel": np.linalg.norm(real.velocities - found.velocities, axis=1),
        "attr": np.where(real.attributes == "", np.nan, 1 - same),
    }


def _sorted_matches(
    values: Sequence[np.ndarray], partners: Sequence[np.ndarray], place: int, order: np.ndarray
) -> np.ndarray:
    """Errors of all matches, the best scored first."""
    where = np.concatenate([p[place] for p in partners]) >= 0
    spread = np.full(len(where), np.nan)
    spread[where] = np.concatenate(values)
    return spread[order][where[order]]


def _mean_error(values: np.ndarray, scores: np.ndarray, confidence: np.ndarray) -> float:
    """Mean over recalls of the mean error of all matches that score at least as high.

    Args:
        values: (m,) errors of matches, the best scored first; NaN where unknown.
        scores: (m,) their scores.
        confidence: (101,) the score at each recall.
    """
    reached = np.nonzero(confidence)[0]
    last = int(reached[-1]) if len(reached) else 0
    if last < _FIRST:
        return 1.0
    known = ~np.isnan(values)
    if known.any():
        counts = np.cumsum(known)
        sums = np.cumsum(np.where(known, values, 0))
        means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    else:
        means = np.ones(len(values))
    at = np.interp(confidence[::-1], scores[::-1], means[::-1])[::-1]
    return float(np.mean(at[_FIRST : last + 1]))
