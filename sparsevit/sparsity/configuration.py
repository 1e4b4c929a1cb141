"""Knobs and configurations: what a sparse model lets a user set, and what it is set to."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from sparsevit.errors import UserError, shortened

# Ratios are stored and compared at this many decimals, so that 3 * 0.1 is 0.3.
DECIMALS = 10


class ConfigurationError(UserError, ValueError):
    """A knob, a ratio or a set of ratios that a space does not take.

    Args:
        problem: which knob is wrong, and why.
        remedy: what would be right.
        knob: the name of the knob at fault, or None where it is not one knob.
    """

    def __init__(self, problem: str, remedy: str = "", knob: str | None = None) -> None:
        super().__init__(problem, remedy)
        self.knob = knob


def to_ratio(value: object, where: str, knob: str | None = None) -> float:
    """Reads one ratio.

    Args:
        value: a real number (Python's or NumPy's; no bool, no text).
        where: what the ratio is of, as the error shall name it.
        knob: the knob at fault, for the error.

    Raises:
        ConfigurationError: where it is not a number or not within [0, 1).
    """
    number = _real(value)
    if number is None:
        raise ConfigurationError(
            f"{where} is {shortened(value)}, which is not a number.",
            "A ratio is a number from 0 up.",
            knob,
        )
    ratio = round(number, DECIMALS) if math.isfinite(number) else number
    if not 0 <= ratio < 1:
        raise ConfigurationError(
            f"{where} is {number:g}, which is not within [0, 1).",
            "A ratio is the share of the work that is skipped: 0 skips none, 0.8 skips 80%.",
            knob,
        )
    return ratio + 0.0  # -0.0 becomes 0.0


def _real(value: object) -> float | None:
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def default_choices() -> tuple[float, ...]:
    """The paper's choices for every knob: 0 to 0.8 by 0.1."""
    return choices_from(0.0, 0.8, 0.1)


def choices_from(low: float, high: float, step: float) -> tuple[float, ...]:
    """Choices from low to high (both included where the step meets it), equally spaced.

    Raises:
        ConfigurationError: where they are not ratios, low is above high, or step is not above 0.
    """
    low, high = to_ratio(low, "the lowest choice"), to_ratio(high, "the highest choice")
    if low > high:
        raise ConfigurationError(
            f"The lowest choice ({low:g}) is above the highest ({high:g}).", "Swap them."
        )
    if not step > 0 or not math.isfinite(step):
        raise ConfigurationError(
            f"The step between choices is {step!r}.", "Give a number above 0, such as 0.1."
        )
    count = int((high - low) / step + 1e-6) + 1
    return tuple(round(low + index * step, DECIMALS) for index in range(count))


@dataclass(frozen=True)
class Knob:
    """One searchable ratio.

    Args:
        name: how files and commands name it, for example ``backbone.stages.2_1``.
        group: knobs of one group (a stage) never fall from one to the next.
        choices: the ratios a search may set it to; kept ascending, each once.
        layers: how many consecutive layers it sets (2 for a pair of plain and shifted block).

    Raises:
        ConfigurationError: where there is no choice or one is no ratio, or layers is below 1.
    """

    name: str
    group: str
    choices: tuple[float, ...] = field(default_factory=default_choices)
    layers: int = 1

    def __post_init__(self) -> None:
        if not self.choices:
            raise ConfigurationError(
                f"Knob {self.name!r} has no choices.", "Give it at least one ratio.", self.name
            )
        if self.layers < 1:
            raise ConfigurationError(
                f"Knob {self.name!r} sets {self.layers} layers.", "It needs 1 or more.", self.name
            )
        where = f"A choice of knob {self.name!r}"
        ratios = {to_ratio(choice, where, self.name) for choice in self.choices}
        object.__setattr__(self, "choices", tuple(sorted(ratios)))


class Configuration(Mapping[str, float]):
    """A ratio for every knob; immutable, hashable, in the order of its space.

    Equal to any mapping with the same names and ratios, whatever its order. It holds any ratios
    within [0, 1); whether they suit a model is what :meth:`Space.validate` says.

    Args:
        ratios: knob name to ratio, as a mapping or as pairs.

    Raises:
        ConfigurationError: where a value is not a number within [0, 1).
    """

    __slots__ = ("_hash", "_ratios")

    def __init__(self, ratios: Mapping[str, float] | Iterable[tuple[str, float]]) -> None:
        self._ratios: dict[str, float] = {
            str(name): to_ratio(value, f"The ratio of knob {shortened(repr(name))}", str(name))
            for name, value in dict(ratios).items()
        }
        self._hash: int = hash(frozenset(self._ratios.items()))

    @classmethod
    def parse(cls, text: str) -> Configuration:
        """Reads ``knob=ratio`` pairs, or the ``knob ratio knob ratio`` of the paper's search log.

        Pairs are separated by commas or blanks.

        Raises:
            ConfigurationError: where the text is neither.
        """
        words = [word for word in re.split(r"[\s,=]+", text.strip()) if word]
        if not words or len(words) % 2:
            raise ConfigurationError(
                f"{text!r} is not a list of knobs and ratios.",
                "Write it as backbone.stages.0=0.6,backbone.stages.1=0.",
            )
        ratios: dict[str, float] = {}
        for name, word in zip(words[::2], words[1::2], strict=True):
            if name in ratios:
                raise ConfigurationError(f"Knob {name!r} is given twice.", "Give it once.", name)
            try:
                ratios[name] = float(word)
            except ValueError:
                raise ConfigurationError(
                    f"The ratio of knob {name!r} is {word!r}, which is not a number.",
                    "Write it as backbone.stages.0=0.6.",
                    name,
                ) from None
        return cls(ratios)

    def __getitem__(self, name: str) -> float:
        return self._ratios[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ratios)

    def __len__(self) -> int:
        return len(self._ratios)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Configuration):
            return self._ratios == other._ratios
        if isinstance(other, Mapping):
            return self._ratios == dict(other)
        return NotImplemented

    def __reduce__(self) -> tuple[type[Configuration], tuple[dict[str, float]]]:
        return Configuration, (self.to_dict(),)

    def __repr__(self) -> str:
        return f"Configuration({self._ratios!r})"

    def __str__(self) -> str:
        return ",".join(f"{name}={format_ratio(ratio)}" for name, ratio in self.items())

    def to_dict(self) -> dict[str, float]:
        """A new dict, knob name to ratio, in the space's order."""
        return dict(self._ratios)

    def mean(self) -> float:
        """The mean ratio over knobs; 0 where there are none."""
        if not self._ratios:
            return 0.0
        return math.fsum(self._ratios.values()) / len(self._ratios)


def format_ratio(ratio: float) -> str:
    """The shortest text that reads back as the ratio: 0 as ``0``, 0.3 as ``0.3``."""
    return "0" if ratio == 0 else repr(ratio)
