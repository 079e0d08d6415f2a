"""A Gaussian process made for block weights: many axes, few trials, known luck.

What it assumes of a merge's score, to be corrected by the data:

- Blocks add up, to first order: a sum of one smooth curve an axis. Beside it stands one
  smooth function of all axes at once, for what blocks do together. How much of the
  score either explains, and how fast it changes along every axis, is fitted.
- Luck differs from trial to trial: a trial that was given up after four pictures is
  known worse than one that rendered twelve, an estimate from a cheap rung worse still.

Both kernels are Matern 5/2 over [0, 1] in every axis. Hyperparameters are the most
probable ones under wide priors (length scales grow with the square root of the number
of axes: C. Hvarfner et al., Vanilla Bayesian optimization performs great in high
dimensions, 2024, https://arxiv.org/abs/2402.02229).

Gradients are written out, so that it works in whatever mode a WebUI has put torch. It
computes on one thread: the matrices are small, and several threads would only wait for
each other, and for whatever renders just then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

SQRT5 = math.sqrt(5.0)
JITTER = 1e-6
MAX_FIT_STEPS = 60

CHUNK = 50_000
"""Gaps that are looked at together: so many stay in a processor's cache."""

Function = TypeVar("Function", bound=Callable[..., Any])


@contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    n = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(n)


def _alone(function: Function) -> Function:
    """Run a function on one thread."""

    @wraps(function)
    def run(*args: Any, **options: Any) -> Any:
        with _one_thread():
            return function(*args, **options)

    return run  # type: ignore[return-value]


@dataclass(frozen=True)
class Data:
    """Trials as the process sees them.

    Attributes:
        x: One row a trial, every axis scaled to [0, 1].
        y: Scores.
        weight: How well each is known: 1 for a whole trial, less for an estimate; the
            variance of its luck is that of a whole trial divided by this.
        luck: Standard deviation of a whole trial's luck, as far as its pictures tell;
            None while they tell nothing.
    """

    x: Array
    y: Array
    weight: Array
    luck: float | None = None


class GaussianProcess:
    """The process, fitted to some trials.

    Args:
        data: At least two trials.
        theta: Hyperparameters of another process over the same axes, instead of
            fitting some.
    """

    @_alone
    def __init__(self, data: Data, theta: Array | None = None) -> None:
        import numpy as np
        import torch

        self._dims = data.x.shape[1]
        self._middle = float(np.average(data.y, weights=data.weight))
        spread = float(np.std(data.y))
        self._scale = spread if spread > 0 else 1.0
        self._luck = None if data.luck is None else data.luck / self._scale
        self._x = torch.from_numpy(np.array(data.x))
        self._y = torch.from_numpy((data.y - self._middle) / self._scale)
        self._doubt = torch.from_numpy(1 / data.weight)
        self._measure_gaps()
        self.theta = self._fit() if theta is None else theta
        self._solve()

    def _measure_gaps(self) -> None:
        """Gaps between all trials along every axis, and their squares."""
        rows = self._x.T
        self._gaps = (rows[:, :, None] - rows[:, None, :]).abs()
        self._squares = self._gaps * self._gaps

    # Hyperparameters: log length scale of every axis in the joint kernel, then in the
    # curves, log share of every curve, log share of the joint kernel, log variance of
    # a whole trial's luck.

    def _parts(self, theta: Array) -> tuple[Any, Any, Any, float, float]:
        import torch

        d = self._dims
        values = torch.from_numpy(theta).exp()
        tail = values[3 * d :].tolist()
        return (
            values[:d],
            values[d : 2 * d],
            values[2 * d : 3 * d],
            float(tail[0]),
            float(tail[1]),
        )

    def _priors(self) -> tuple[Array, Array]:
        """Mean and standard deviation of every log hyperparameter."""
        import numpy as np

        d = self._dims
        luck = math.log(0.05) if self._luck is None else 2 * math.log(self._luck + 1e-3)
        mean = np.concatenate(
            [
                np.full(d, math.log(0.5) + 0.5 * math.log(d)),
                np.full(d, math.log(0.5)),
                np.full(d, math.log(1.0 / d)),
                [math.log(0.5), luck],
            ]
        )
        deviation = np.concatenate(
            [
                np.full(d, 0.7),
                np.full(d, 0.5),
                np.full(d, 1.5),
                [1.0, 1.5 if self._luck is None else 0.3],
            ]
        )
        return mean, deviation

    def _fit(self) -> Array:
        import numpy as np
        from scipy.optimize import minimize

        mean, deviation = self._priors()
        found = minimize(
            self._loss,
            mean,
            jac=True,
            method="L-BFGS-B",
            bounds=list(zip(mean - 4 * deviation, mean + 4 * deviation, strict=True)),
            options={"maxiter": MAX_FIT_STEPS},
        )
        return np.asarray(found.x)

    def _kernel(self, theta: Array) -> tuple[Any, Any, Any, Any]:
        """The kernel, and what its gradient needs: both slopes and the curves."""
        joint_l, curve_l, share, joint, _ = self._parts(theta)
        n = len(self._x)
        flat = self._squares.reshape(self._dims, -1)
        r = (joint_l**-2 @ flat).reshape(n, n).sqrt() * SQRT5
        far = joint * (-r).exp()
        rs = self._gaps * (SQRT5 / curve_l)[:, None, None]
        near = share[:, None, None] * (-rs).exp()
        slopes = near * (1 + rs)
        squares = rs * rs / 3
        curves = slopes + near * squares
        joint_kernel = far * (1 + r + r * r / 3)
        return joint_kernel, far * (5 / 3) * (1 + r), curves, slopes * squares

    def _loss(self, theta: Array) -> tuple[float, Array]:
        """Negative log posterior of the hyperparameters, and its gradient."""
        import numpy as np
        import torch

        joint_l, _, _, _, noise = self._parts(theta)
        joint, joint_slope, curves, slopes = self._kernel(theta)
        full = joint + curves.sum(0)
        full.diagonal().add_(noise * self._doubt + JITTER)
        factor, fault = torch.linalg.cholesky_ex(full)
        if int(fault):
            return 1e10, np.zeros_like(theta)
        inverse = torch.cholesky_inverse(factor)
        alpha = inverse @ self._y
        pull = (0.5 * (inverse - torch.outer(alpha, alpha))).flatten()
        d = self._dims
        by_axis = self._squares.reshape(d, -1) @ (pull * joint_slope.flatten())
        last = (pull @ joint.flatten(), pull[:: len(full) + 1] @ self._doubt * noise)
        gradient = torch.cat(
            [
                by_axis / joint_l**2,
                slopes.reshape(d, -1) @ pull,
                curves.reshape(d, -1) @ pull,
                torch.stack(last),
            ]
        ).numpy()
        loss = float(0.5 * self._y @ alpha + factor.diagonal().log().sum())
        mean, deviation = self._priors()
        pulls = (theta - mean) / deviation
        return loss + 0.5 * float((pulls * pulls).sum()), gradient + pulls / deviation

    def _solve(self) -> None:
        import torch

        joint, _, curves, _ = self._kernel(self.theta)
        full = joint + curves.sum(0)
        full.diagonal().add_(self._parts(self.theta)[4] * self._doubt + JITTER)
        self._inverse = torch.cholesky_inverse(torch.linalg.cholesky(full))
        self._alpha = self._inverse @ self._y

    def _cross(self, x: Any, *, is_sloping: bool) -> tuple[Any, Any]:
        """Kernel between points and the trials, and how it changes with the points."""
        joint_l, curve_l, share, joint, _ = self._parts(self.theta)
        gaps = x[:, None, :] - self._x[None, :, :]
        r = (gaps * gaps @ joint_l**-2).sqrt() * SQRT5
        far = joint * (-r).exp()
        rs = gaps.abs() * (SQRT5 / curve_l)
        near = (-rs).exp()
        kernel = far * (1 + r + r * r / 3) + near * (1 + rs + rs * rs / 3) @ share
        if not is_sloping:
            return kernel, None
        apart = (far * (1 + r))[:, :, None] * joint_l**-2
        along = near * (1 + rs) * (share / curve_l**2)
        return kernel, -5 / 3 * gaps * (apart + along)

    def _predict(self, kernel: Any) -> tuple[Any, Any, Any]:
        _, _, share, joint, _ = self._parts(self.theta)
        solved = kernel @ self._inverse
        variance = joint + float(share.sum()) - (kernel * solved).sum(1)
        deviation = self._scale * variance.clamp(min=1e-9).sqrt()
        return self._middle + self._scale * (kernel @ self._alpha), deviation, solved

    @_alone
    def predict(self, x: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the score without luck, by row of x."""
        import torch

        size = max(1, CHUNK // (len(self._x) * self._dims))
        rows = torch.from_numpy(x)
        parts = [rows[i : i + size] for i in range(0, len(rows), size)]
        kernel = torch.cat([self._cross(p, is_sloping=False)[0] for p in parts])
        mean, deviation, _ = self._predict(kernel)
        return mean.numpy(), deviation.numpy()

    @_alone
    def slopes(self, x: Array) -> tuple[Array, Array, Array, Array]:
        """Mean, standard deviation, and the slopes of both, by row of x."""
        import torch

        kernel, slope = self._cross(torch.from_numpy(x), is_sloping=True)
        mean, deviation, solved = self._predict(kernel)
        mean_slope = self._scale * torch.einsum("pnd,n->pd", slope, self._alpha)
        fall = self._scale**2 * torch.einsum("pnd,pn->pd", slope, solved)
        deviation_slope = -fall / deviation[:, None]
        return (
            mean.numpy(),
            deviation.numpy(),
            mean_slope.numpy(),
            deviation_slope.numpy(),
        )

    @_alone
    def believing(self, x: Array) -> GaussianProcess:
        """The same process, told that it is right about some points."""
        import numpy as np
        import torch

        mean, _ = self.predict(x)
        told = torch.from_numpy((mean - self._middle) / self._scale)
        other = copy(self)
        other._x = torch.cat([self._x, torch.from_numpy(np.array(x))])
        other._y = torch.cat([self._y, told])
        other._doubt = torch.cat([self._doubt, torch.ones_like(told)])
        other._measure_gaps()
        other._solve()
        return other

    @property
    def luck(self) -> float:
        """Fitted standard deviation of a whole trial's luck."""
        return self._scale * math.sqrt(self._parts(self.theta)[4])
