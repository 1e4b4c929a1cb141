"""A Gaussian process of the score over a configuration's knobs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Scores that a model is fitted to at most: the best, and others evenly.
_MOST_POINTS = 400
_STEPS = 25
_FIRST_STEP = 0.3
# Keeps a step that went astray from what cannot be computed with.
_LOG_RANGE = (-5.0, 4.0)
_JITTER = 1e-6
# What is expected of the logarithms of a model's parameters, and how firmly: lengths in ranges of a
# knob, the rest in standard deviations of the scores. Smooth, mostly additive, little roughness.
_PRIOR = {
    "lengths": (math.log(0.7), 0.8),
    "slope": (math.log(1.0), 1.0),
    "additive": (math.log(0.5), 1.0),
    "joint": (math.log(0.3), 1.0),
    "noise": (math.log(0.15), 1.0),
}
_SINGLE = ("slope", "additive", "joint", "noise")


@dataclass(frozen=True)
class Parameters:
    """Of the covariance of two configurations x and z with D knobs, each within 0 and 1::

        slope^2 (x - 1/2).(z - 1/2) / D + additive^2 mean_d k_d + joint^2 prod_d k_d
            + noise^2 (x is z)
        k_d = exp(-(x_d - z_d)^2 / 2 lengths_d^2)

    A slope for each knob, a curve for each, what knobs do together, and what is left: the roughness
    of a score on few images, which no smooth function follows.

    Attributes:
        lengths: (D,).
        slope, additive, joint, noise: standard deviations, (), in those of the scores.
    """

    lengths: Tensor
    slope: Tensor
    additive: Tensor
    joint: Tensor
    noise: Tensor

    def covariance(self, x_ND: Tensor, z_MD: Tensor) -> Tensor:
        """(N, M), without the noise."""
        D = x_ND.shape[1]
        apart_NMD = ((x_ND[:, None] - z_MD[None]) / self.lengths).square() / -2
        return (
            self.slope**2 * ((x_ND - 0.5) @ (z_MD - 0.5).T) / D
            + self.additive**2 * apart_NMD.exp().mean(-1)
            + self.joint**2 * apart_NMD.sum(-1).exp()
        )

    def variance(self, x_ND: Tensor) -> Tensor:
        """(N,), the diagonal of the covariance, with the noise."""
        slope = self.slope**2 * (x_ND - 0.5).square().mean(-1)
        return slope + self.additive**2 + self.joint**2 + self.noise**2


class ScoreModel:
    """What scores seen so far say about those not seen.

    Args:
        x_ND: configurations, each knob within 0 and 1; float64.
        scores_N: their scores.
        like: a model fitted to some of them, whose parameters are taken as they are.
    """

    def __init__(self, x_ND: Tensor, scores_N: Tensor, like: ScoreModel | None = None) -> None:
        kept_N = _informative(scores_N)
        x_ND, scores_N = x_ND[kept_N], scores_N[kept_N]
        self.mean = scores_N.mean()
        self.scale = scores_N.std(correction=0).clamp_min(1e-9)
        self.x_ND = x_ND
        y_N = (scores_N - self.mean) / self.scale
        self.parameters: Parameters = _fitted(x_ND, y_N) if like is None else like.parameters
        self._cholesky_NN = _cholesky(self.parameters, x_ND)
        self._weights_N1 = torch.cholesky_solve(y_N[:, None], self._cholesky_NN)

    def predict(self, x_MD: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the scores of configurations, (M,) each."""
        cross_MN = self.parameters.covariance(x_MD, self.x_ND)
        known_NM = torch.linalg.solve_triangular(self._cholesky_NN, cross_MN.T, upper=False)
        variance_M = self.parameters.variance(x_MD) - known_NM.square().sum(0)
        mean_M = (cross_MN @ self._weights_N1)[:, 0]
        deviation_M = variance_M.clamp_min(1e-12).sqrt()
        return self.mean + self.scale * mean_M, self.scale * deviation_M


def expected_improvement(mean_M: Tensor, deviation_M: Tensor, best: float) -> Tensor:
    """By how much each is expected to be better than the best (0 where it is not), (M,)."""
    z_M = (mean_M - best) / deviation_M
    density_M = torch.exp(-z_M.square() / 2) / math.sqrt(2 * math.pi)
    return deviation_M * (z_M * torch.special.ndtr(z_M) + density_M)


def _informative(scores_N: Tensor) -> Tensor:
    """Indices of the points to fit to: all; of very many the best half and others evenly."""
    N = len(scores_N)
    if N <= _MOST_POINTS:
        return torch.arange(N)
    order_N = torch.argsort(scores_N, descending=True, stable=True)
    half = _MOST_POINTS // 2
    others = order_N[half:]
    evenly = torch.linspace(0, len(others) - 1, _MOST_POINTS - half).long()
    return torch.cat([order_N[:half], others[evenly]]).sort().values


def _cholesky(parameters: Parameters, x_ND: Tensor) -> Tensor:
    N = len(x_ND)
    noise = parameters.noise**2 + _JITTER
    covariance_NN = parameters.covariance(x_ND, x_ND) + noise * torch.eye(N, dtype=x_ND.dtype)
    return torch.linalg.cholesky(covariance_NN)


def _fitted(x_ND: Tensor, y_N: Tensor) -> Parameters:
    """The parameters under which the scores are most likely, by a few steps from the prior's.

    The steps are those of Rprop: only the gradients' signs count, so no rate has to be chosen.
    """
    D = x_ND.shape[1]
    centre_P, deviation_P = _prior(D, x_ND.dtype)
    log_P, step_P = centre_P.clone(), torch.full_like(centre_P, _FIRST_STEP)
    sign_P = torch.zeros_like(centre_P)
    best_P, best = log_P, float("inf")
    for _ in range(_STEPS):
        with torch.enable_grad():
            log_P = log_P.detach().requires_grad_()
            loss = _surprise(_parameters(log_P, D), y_N, x_ND)
            loss = loss + ((log_P - centre_P) / deviation_P).square().sum() / 2
            (gradient_P,) = torch.autograd.grad(loss, log_P)
        if loss.item() < best:
            best_P, best = log_P.detach(), loss.item()
        turned_P = gradient_P.sign() * sign_P
        step_P = step_P * torch.where(turned_P > 0, 1.2, torch.where(turned_P < 0, 0.5, 1.0))
        sign_P = gradient_P.sign()
        log_P = (log_P.detach() - step_P * sign_P).clamp(*_LOG_RANGE)
    return _parameters(best_P, D)


def _prior(D: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Centre and deviation of the logarithms, (P,): a length for each knob, then the rest."""
    rows = [_PRIOR["lengths"]] * D + [_PRIOR[name] for name in _SINGLE]
    centre_P, deviation_P = torch.tensor(rows, dtype=dtype).unbind(1)
    return centre_P, deviation_P


def _parameters(log_P: Tensor, D: int) -> Parameters:
    values_P = log_P.exp()
    return Parameters(values_P[:D], *values_P[D:])


def _surprise(parameters: Parameters, y_N: Tensor, x_ND: Tensor) -> Tensor:
    """The negative logarithm of the scores' likelihood, but for a constant."""
    cholesky_NN = _cholesky(parameters, x_ND)
    whitened_N1 = torch.linalg.solve_triangular(cholesky_NN, y_N[:, None], upper=False)
    return whitened_N1.square().sum() / 2 + cholesky_NN.diagonal().log().sum()
