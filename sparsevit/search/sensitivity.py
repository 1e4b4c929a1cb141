"""How score and latency answer to each knob alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sparsevit.errors import UserError
from sparsevit.plain_files import read_record
from sparsevit.sparsity import Configuration

Curve = tuple[tuple[float, float], ...]
"""(ratio, value) by ascending ratio; the first is dense."""


@dataclass(frozen=True)
class Response:
    """A model with one knob set.

    Attributes:
        knob, ratio: which, and to what; None and 0 of the dense model.
        configuration: all ratios: those after the knob in its group are raised to it.
        scores: metric -> points, 0 to 100.
        latency_ms: milliseconds of a timed call.
    """

    knob: str | None
    ratio: float
    configuration: Configuration
    scores: dict[str, float]
    latency_ms: float


@dataclass(frozen=True)
class Sensitivity:
    """A model dense, and with each knob alone at each of its choices.

    Attributes:
        dense: the model at ratio 0.
        responses: knob by knob, ratios ascending.
        images: how many images scores are from.
        latency: whether latencies were ``predicted`` or ``measured``.
    """

    dense: Response
    responses: tuple[Response, ...]
    images: int
    latency: Literal["predicted", "measured"]

    @property
    def knobs(self) -> tuple[str, ...]:
        """The knobs, in the model's order."""
        return tuple(self.dense.configuration)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that every response has."""
        return tuple(self.dense.scores)

    def scores(self, metric: str) -> dict[str, Curve]:
        """Knob -> (ratio, score), beginning with the dense model's.

        Raises:
            UserError: the evaluation gave no such metric.
        """
        if metric not in self.dense.scores:
            raise UserError(
                f"The sensitivity analysis has no metric {metric!r}.",
                f"Take one of: {', '.join(self.metrics)}.",
            )
        return {
            knob: (
                (0.0, self.dense.scores[metric]),
                *((r.ratio, r.scores[metric]) for r in self._of(knob)),
            )
            for knob in self.knobs
        }

    def latencies(self) -> dict[str, Curve]:
        """Knob -> (ratio, milliseconds), beginning with the dense model's."""
        return {
            knob: (
                (0.0, self.dense.latency_ms),
                *((r.ratio, r.latency_ms) for r in self._of(knob)),
            )
            for knob in self.knobs
        }

    def _of(self, knob: str) -> list[Response]:
        return sorted((r for r in self.responses if r.knob == knob), key=lambda r: r.ratio)

    def to_dict(self) -> dict[str, Any]:
        """As plain data; :meth:`from_dict` reads it."""
        return {
            "dense": response_to_dict(self.dense),
            "responses": [response_to_dict(each) for each in self.responses],
            "images": self.images,
            "latency": self.latency,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Sensitivity:
        """What :meth:`to_dict` wrote.

        Raises:
            ValueError: it is something else.
        """
        try:
            latency = document["latency"]
            if latency not in ("predicted", "measured"):
                raise ValueError(f"latency is {latency!r}")
            found = cls(
                dense=response_from_dict(document["dense"]),
                responses=tuple(response_from_dict(each) for each in document["responses"]),
                images=int(document["images"]),
                latency=latency,
            )
            for response in found.responses:
                if response.knob not in found.knobs or set(response.scores) != set(found.metrics):
                    raise ValueError(f"{response.knob} at {response.ratio} does not fit")
            return found
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"no sensitivity: {error}") from error


def read_sensitivity(path: Path) -> Sensitivity | None:
    """A sensitivity from its JSON file; None where there is none that can be read."""
    try:
        return Sensitivity.from_dict(read_record(path))
    except ValueError:
        return None


def response_to_dict(response: Response) -> dict[str, Any]:
    """As plain data."""
    return {**asdict(response), "configuration": response.configuration.to_dict()}


def response_from_dict(entry: Mapping[str, Any]) -> Response:
    """What :func:`response_to_dict` wrote.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is something else.
    """
    knob = entry["knob"]
    return Response(
        knob=None if knob is None else str(knob),
        ratio=_finite(entry["ratio"]),
        configuration=Configuration(entry["configuration"]),
        scores={str(name): _finite(value) for name, value in entry["scores"].items()},
        latency_ms=_finite(entry["latency_ms"]),
    )


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not a finite number")
    return number
