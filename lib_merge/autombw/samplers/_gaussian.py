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
dimensions, 2024, https://arxiv.org/abs/2402.02229). numpy and scipy only, so that it
works whatever mode torch is in.
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

SQRT5 = math.sqrt(5.0)
JITTER = 1e-6
MAX_FIT_STEPS = 60


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

    def first(self, n: int) -> Data:
        """The first n trials alone."""
        return Data(self.x[:n], self.y[:n], self.weight[:n], self.luck)


class GaussianProcess:
    """The process, fitted to some trials.

    Args:
        data: At least two trials.
        theta: Hyperparameters of another process over the same axes, instead of
            fitting some.
    """

    def __init__(self, data: Data, theta: Array | None = None) -> None:
        import numpy as np

        self._x = data.x
        self._n, self._dims = data.x.shape
        self._middle = float(np.average(data.y, weights=data.weight))
        spread = float(np.std(data.y))
        self._scale = spread if spread > 0 else 1.0
        self._y = (data.y - self._middle) / self._scale
        self._weight = data.weight
        self._luck = None if data.luck is None else data.luck / self._scale
        self._measure_gaps()
        self.theta = self._fit() if theta is None else theta
        self._solve()

    def _measure_gaps(self) -> None:
        """Squared gaps between all trials along every axis, and the gaps."""
        import numpy as np

        gaps = np.moveaxis(self._x[:, None, :] - self._x[None, :, :], 2, 0)
        self._gaps = np.ascontiguousarray(np.abs(gaps))
        self._squares = self._gaps * self._gaps

    # Hyperparameters: log length scale of every axis in the joint kernel, then in the
    # curves, log share of every curve, log share of the joint kernel, log variance of
    # a whole trial's luck.

    def _parts(self, theta: Array) -> tuple[Any, Any, Any, float, float]:
        import numpy as np

        d = self._dims
        values = np.exp(theta)
        return (
            values[:d],
            values[d : 2 * d],
            values[2 * d : 3 * d],
            float(values[3 * d]),
            float(values[3 * d + 1]),
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
        import numpy as np

        joint_l, curve_l, share, joint, _ = self._parts(theta)
        r = np.sqrt(np.tensordot(1 / joint_l**2, self._squares, axes=1))
        decay = np.exp(-SQRT5 * r)
        joint_kernel = joint * (1 + SQRT5 * r + 5 / 3 * r * r) * decay
        joint_slope = joint * 5 / 3 * (1 + SQRT5 * r) * decay
        rs = self._gaps / curve_l[:, None, None]
        decays = np.exp(-SQRT5 * rs)
        curves = share[:, None, None] * (1 + SQRT5 * rs + 5 / 3 * rs * rs) * decays
        slopes = share[:, None, None] * 5 / 3 * (1 + SQRT5 * rs) * decays * rs * rs
        return joint_kernel, joint_slope, curves, slopes

    def _loss(self, theta: Array) -> tuple[float, Array]:
        """Negative log posterior of the hyperparameters, and its gradient."""
        import numpy as np
        from scipy.linalg import cho_factor, cho_solve

        joint_l, _, _, _, noise = self._parts(theta)
        joint, joint_slope, curves, slopes = self._kernel(theta)
        full = joint + curves.sum(0)
        full[np.diag_indices(self._n)] += noise / self._weight + JITTER
        try:
            factor = cho_factor(full, lower=True)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros_like(theta)
        alpha = cho_solve(factor, self._y)
        inverse = cho_solve(factor, np.eye(self._n))
        pull = 0.5 * (inverse - np.outer(alpha, alpha))
        d = self._dims
        gradient = np.empty_like(theta)
        by_axis = np.tensordot(self._squares, pull * joint_slope, axes=2)
        gradient[:d] = by_axis / joint_l**2
        gradient[d : 2 * d] = np.tensordot(slopes, pull, axes=2)
        gradient[2 * d : 3 * d] = np.tensordot(curves, pull, axes=2)
        gradient[3 * d] = float((pull * joint).sum())
        gradient[3 * d + 1] = float((np.diag(pull) * noise / self._weight).sum())
        loss = 0.5 * float(self._y @ alpha)
        loss += float(np.log(np.diag(factor[0])).sum())
        mean, deviation = self._priors()
        pulls = (theta - mean) / deviation
        return loss + 0.5 * float(pulls @ pulls), gradient + pulls / deviation

    def _solve(self) -> None:
        import numpy as np
        from scipy.linalg import cho_factor, cho_solve

        joint, _, curves, _ = self._kernel(self.theta)
        noise = self._parts(self.theta)[4]
        full = joint + curves.sum(0)
        full[np.diag_indices(self._n)] += noise / self._weight + JITTER
        self._factor = cho_factor(full, lower=True)
        self._alpha = cho_solve(self._factor, self._y)

    def _cross(self, x: Array) -> Any:
        """Kernel between points and the trials."""
        import numpy as np

        joint_l, curve_l, share, joint, _ = self._parts(self.theta)
        gaps = x[:, None, :] - self._x[None, :, :]
        r = np.sqrt(np.einsum("pnd,pnd,d->pn", gaps, gaps, 1 / joint_l**2))
        rs = np.abs(gaps, out=gaps)
        rs *= SQRT5 / curve_l
        curves = (1 + rs + rs * rs / 3) * np.exp(-rs)
        return joint * (1 + SQRT5 * r + 5 / 3 * r * r) * np.exp(-SQRT5 * r) + (
            curves @ share
        )

    def _cross_slope(self, x: Array) -> Any:
        """How that kernel changes with the points."""
        import numpy as np

        joint_l, curve_l, share, joint, _ = self._parts(self.theta)
        gaps = x[:, None, :] - self._x[None, :, :]
        r = np.sqrt(((gaps / joint_l) ** 2).sum(2))
        rs = np.abs(gaps) / curve_l
        far = joint * (1 + SQRT5 * r) * np.exp(-SQRT5 * r)
        near = share * (1 + SQRT5 * rs) * np.exp(-SQRT5 * rs)
        return -5 / 3 * gaps * (far[:, :, None] / joint_l**2 + near / curve_l**2)

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the score without luck, by row of x."""
        mean, deviation, _ = self._predict(self._cross(x))
        return mean, deviation

    def _predict(self, kernel: Any) -> tuple[Any, Any, Any]:
        import numpy as np
        from scipy.linalg import cho_solve

        _, _, share, joint, _ = self._parts(self.theta)
        solved = cho_solve(self._factor, kernel.T, check_finite=False).T
        variance = joint + share.sum() - (kernel * solved).sum(1)
        deviation = self._scale * np.sqrt(np.maximum(variance, 1e-9))
        return self._middle + self._scale * (kernel @ self._alpha), deviation, solved

    def believing(self, x: Array) -> GaussianProcess:
        """The same process, told that it is right about some points."""
        import numpy as np

        mean, _ = self.predict(x)
        other = copy(self)
        other._x = np.concatenate([self._x, x])
        other._y = np.concatenate([self._y, (mean - self._middle) / self._scale])
        other._weight = np.concatenate([self._weight, np.ones(len(x))])
        other._n = len(other._x)
        other._measure_gaps()
        other._solve()
        return other

    def slopes(self, x: Array) -> tuple[Any, Any, Any, Any]:
        """Mean, standard deviation, and the slopes of both."""
        import numpy as np

        mean, deviation, solved = self._predict(self._cross(x))
        slope = self._cross_slope(x)
        mean_slope = self._scale * np.einsum("pnd,n->pd", slope, self._alpha)
        fall = self._scale**2 * np.einsum("pnd,pn->pd", slope, solved)
        return mean, deviation, mean_slope, -fall / deviation[:, None]

    @property
    def luck(self) -> float:
        """Fitted standard deviation of a whole trial's luck."""
        return self._scale * math.sqrt(self._parts(self.theta)[4])
