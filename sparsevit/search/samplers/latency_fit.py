"""Latency as a linear function of a configuration, fitted to what was measured in the search."""

from __future__ import annotations

import torch
from torch import Tensor

# Of a share of the latencies' mean: how far a slope may be from 0 before it takes evidence, and the
# least that a latency is taken to be uncertain by.
_SLOPE = 1.0
_LEAST_DEVIATION = 0.005


class LatencyFit:
    """Bayesian linear regression of latency.

    Args:
        x_ND: configurations, each knob within 0 and 1; float64.
        latency_N: milliseconds.
    """

    def __init__(self, x_ND: Tensor, latency_N: Tensor) -> None:
        self.scale = latency_N.mean()
        x_NE, y_N = _with_one(x_ND), latency_N / self.scale
        N, E = x_NE.shape
        prior_EE = torch.eye(E, dtype=x_ND.dtype) / _SLOPE**2
        noise = _LEAST_DEVIATION**2
        for _ in range(3):  # the noise follows from the fit, and the fit from the noise
            precision_EE = x_NE.T @ x_NE / noise + prior_EE
            self._cholesky_EE = torch.linalg.cholesky(precision_EE)
            moment_E1 = (x_NE.T @ y_N)[:, None] / noise
            self._slopes_E = torch.cholesky_solve(moment_E1, self._cholesky_EE)[:, 0]
            error = (y_N - x_NE @ self._slopes_E).square().sum() / max(1, N - E)
            noise = max(_LEAST_DEVIATION**2, error.item())
        self.noise = noise

    def predict(self, x_MD: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation in milliseconds, (M,) each."""
        x_ME = _with_one(x_MD)
        known_EM = torch.linalg.solve_triangular(self._cholesky_EE, x_ME.T, upper=False)
        deviation_M = (known_EM.square().sum(0) + self.noise).sqrt()
        return self.scale * (x_ME @ self._slopes_E), self.scale * deviation_M

    def chance(self, x_MD: Tensor, interval: tuple[float, float]) -> Tensor:
        """Of each configuration to lie in an interval of milliseconds, (M,)."""
        mean_M, deviation_M = self.predict(x_MD)
        low, high = interval
        above_low_M = torch.special.ndtr((mean_M - low) / deviation_M)
        below_high_M = torch.special.ndtr((high - mean_M) / deviation_M)
        return (above_low_M + below_high_M - 1).clamp_min(0)


def _with_one(x_ND: Tensor) -> Tensor:
    return torch.cat([x_ND, torch.ones_like(x_ND[:, :1])], dim=1)
