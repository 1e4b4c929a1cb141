"""The latency of a configuration without timing it: dense, plus what each knob changes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sparsevit.sparsity import Configuration, ConfigurationError
from sparsevit.sparsity.configuration import format_ratio

Table = tuple[tuple[float, float], ...]
"""(ratio, milliseconds that it changes), by ascending ratio, from (0, 0) on."""


@dataclass(frozen=True)
class HeldOut:
    """A configuration that was measured to check predictions, and not to make them.

    Attributes:
        configuration: a ratio for every knob.
        predicted_ms, measured_ms: its latency.
        standard_error_ms: of what was measured.
    """

    configuration: Configuration
    predicted_ms: float
    measured_ms: float
    standard_error_ms: float

    @property
    def error(self) -> float:
        """How far the prediction is off, as a share of what was measured."""
        return abs(self.predicted_ms - self.measured_ms) / self.measured_ms


@dataclass(frozen=True)
class Calibration:
    """What is known of a model's latency on a device.

    Attributes:
        key: what it holds for: device, precision, image size, model and so on.
        dense_ms: latency of the dense model, milliseconds.
        tables: knob -> milliseconds that each ratio changes, the others as they are.
        held_out: the check.
        mean_error, max_error: of predictions on held-out configurations, as a share.
        limit: the mean error up to which predictions are used.
        measured: configurations that were timed to make the tables.
        seconds: that measuring took.
        made: when, ISO 8601 in UTC.
        busy: what timings say of other work on the machine; None where nothing speaks for it.
    """

    key: dict[str, Any]
    dense_ms: float
    tables: dict[str, Table]
    held_out: tuple[HeldOut, ...]
    mean_error: float
    max_error: float
    limit: float
    measured: int
    seconds: float
    made: str
    busy: str | None = None

    @property
    def accepted(self) -> bool:
        """Whether its predictions may stand for timing."""
        return self.mean_error <= self.limit

    @property
    def noise(self) -> float:
        """Mean standard error of the held-out measurements, as a share: what no prediction could
        be held to."""
        shares = [each.standard_error_ms / each.measured_ms for each in self.held_out]
        return sum(shares) / max(1, len(shares))

    @property
    def typical_error(self) -> float:
        """Root mean square of the errors on held-out configurations, as a share."""
        squares = [each.error**2 for each in self.held_out]
        return math.sqrt(sum(squares) / max(1, len(squares)))

    def to_dict(self) -> dict[str, Any]:
        """As plain data; :meth:`from_dict` reads it."""
        document = asdict(self)
        document["held_out"] = [
            {**asdict(each), "configuration": each.configuration.to_dict()}
            for each in self.held_out
        ]
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Calibration:
        """What :meth:`to_dict` wrote.

        Raises:
            ValueError: it is something else.
        """
        try:
            return cls(
                key=dict(document["key"]),
                dense_ms=_number(document["dense_ms"]),
                tables={str(name): _table(rows) for name, rows in document["tables"].items()},
                held_out=tuple(_held_out(each) for each in document["held_out"]),
                mean_error=_number(document["mean_error"]),
                max_error=_number(document["max_error"]),
                limit=_number(document["limit"]),
                measured=int(document["measured"]),
                seconds=_number(document["seconds"]),
                made=str(document["made"]),
                # an earlier version did not say
                busy=str(document["busy"]) if document.get("busy") else None,
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"no calibration: {error}") from error


class LatencyPredictor:
    """Predicts latencies from a calibration, in proportion to what dense takes now.

    Args:
        calibration: what was measured.
        dense_ms: latency of the dense model now; the calibration's where None.
    """

    def __init__(self, calibration: Calibration, dense_ms: float | None = None) -> None:
        self.calibration = calibration
        self.dense_ms = calibration.dense_ms if dense_ms is None else dense_ms
        # a search asks for thousands, at ratios that were measured
        self._changes_ms = {name: dict(table) for name, table in calibration.tables.items()}

    def predict(self, configuration: Mapping[str, float]) -> float:
        """Milliseconds of a configuration; between ratios that were measured it interpolates.

        Raises:
            ConfigurationError: a knob is missing or unknown, or its ratio is above all measured.
        """
        if configuration.keys() != self._changes_ms.keys():
            wrong = min(set(configuration) ^ set(self._changes_ms))
            raise ConfigurationError(
                f"The latency was calibrated for a different set of knobs: {wrong!r} is in only "
                "one of the two.",
                "Run `sparsevit calibrate` for this model.",
                wrong,
            )
        change_ms = sum(self._change_ms(name, ratio) for name, ratio in configuration.items())
        return (self.calibration.dense_ms + change_ms) * self.dense_ms / self.calibration.dense_ms

    def standard_error(self, configuration: Mapping[str, float]) -> float:
        """Milliseconds by which the prediction is typically off, as it was on held-out ones."""
        return self.predict(configuration) * self.calibration.typical_error

    def scaled(self, dense_ms: float) -> LatencyPredictor:
        """The same on a device on which dense takes ``dense_ms`` now."""
        return LatencyPredictor(self.calibration, dense_ms)

    @property
    def drift(self) -> float:
        """How much longer dense takes than when it was calibrated: 0.1 for 10 % longer."""
        return self.dense_ms / self.calibration.dense_ms - 1

    def _change_ms(self, knob: str, ratio: float) -> float:
        known = self._changes_ms[knob].get(ratio)
        if known is not None:
            return known
        return _interpolated(knob, self.calibration.tables[knob], ratio)


def _interpolated(knob: str, table: Table, ratio: float) -> float:
    ratios, changes_ms = zip(*table, strict=True)
    if ratio > ratios[-1]:
        raise ConfigurationError(
            f"Knob {knob!r} is {format_ratio(ratio)}; its latency was measured up to "
            f"{format_ratio(ratios[-1])}.",
            "Use a ratio no higher than the knob's choices.",
            knob,
        )
    return float(np.interp(ratio, ratios, changes_ms))


def _held_out(entry: Mapping[str, Any]) -> HeldOut:
    return HeldOut(
        configuration=Configuration(entry["configuration"]),
        predicted_ms=_number(entry["predicted_ms"]),
        measured_ms=_number(entry["measured_ms"]),
        standard_error_ms=_number(entry["standard_error_ms"]),
    )


def _table(rows: Any) -> Table:
    table = tuple((_number(ratio), _number(change_ms)) for ratio, change_ms in rows)
    ratios = [ratio for ratio, _ in table]
    if ratios[:1] != [0.0] or ratios != sorted(set(ratios)):
        raise ValueError(f"the ratios {ratios} do not ascend from 0")
    return table


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError(f"{value!r} is not a number")
    return float(value)
