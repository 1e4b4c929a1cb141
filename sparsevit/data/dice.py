"""Random draws that stay the same over numpy versions.

numpy promises that a bit generator's raw words never change; of ``Generator``'s methods it does
not (``choice`` and ``normal`` have changed before). Everything here comes from PCG64's raw words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Dice:
    """A stream of draws for one purpose, e.g. the layout of image 7 of the validation split.

    Args:
        seed: the dataset's seed, 0 or more.
        key: what the stream is for; streams of different keys are independent.
    """

    def __init__(self, seed: int, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(entropy=seed, spawn_key=key))

    def unit(self) -> float:
        """A float in [0, 1), 53 bits."""
        return (int(self._bits.random_raw()) >> 11) * 2.0**-53

    def uniform(self, low: float, high: float) -> float:
        """A float in [low, high)."""
        return low + (high - low) * self.unit()

    def integer(self, low: int, high: int) -> int:
        """A whole number in [low, high], both ends included."""
        return low + int(self.unit() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with ``probability``."""
        return self.unit() < probability

    def pick(self, items: Sequence[T]) -> T:
        """One of ``items``, each as likely as the others."""
        return items[self.integer(0, len(items) - 1)]

    def bell(self) -> float:
        """A bell-shaped draw with mean 0 and deviation 1, within [-3, 3]."""
        return 2.0 * (self.unit() + self.unit() + self.unit() - 1.5)

    def bytes(self, *shape: int) -> np.ndarray:
        """Independent bytes 0..255 of ``shape``, uint8."""
        count = int(np.prod(shape))
        words = self._bits.random_raw(-(-count // 8))
        return words.astype("<u8").view(np.uint8)[:count].reshape(shape)
