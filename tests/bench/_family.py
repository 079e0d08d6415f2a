"""The landscapes that the AutoMBW benchmark searches: known tops in 27 dimensions.

Standard library only, so that a contestant with another Python can import this file.

A landscape has the shape that block weights have shown: a few blocks matter (five, two
of them only together), the others hardly do, and every picture adds luck.

    true(x) = sum over 3 blocks of 0.2 * bump(x_i - c_i)
            + 0.2 * bump(distance of (x_j, x_k) from (c_j, c_k))
            + sum over 22 blocks of 0.2 / 22 * (1 - ((x_i - c_i) / 0.9) ** 2)
    bump(d) = exp(-d * d / (2 * width * width)),  width 0.2 (narrow) or 0.4 (wide)

Centres lie in 0.1 to 0.9 at random; which blocks matter is random too. The top is 0.8.
A picture of shot s at point x scores

    true(x) + common(s) + luck(x, s)

`common` is one draw a shot, the same for every point (a prompt with its seed is easy or
hard for all merges); `luck` is drawn anew for every point and shot. Both are normal;
luck's deviation is noise * sqrt(12), so that the mean of a trial's 12 pictures varies
by `noise` from point to point around true + constant; common's is the same. One point
rendered again with the same shot gives the same picture.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence

N_DIMS = 27
N_SHOTS = 12
WIDTHS = {"narrow": 0.2, "wide": 0.4}
TOP = 0.8


class Landscape:
    """One member of the family.

    Args:
        kind: "narrow" or "wide".
        noise: How far the mean of 12 pictures varies from point to point.
        seed: Which member.
    """

    def __init__(self, kind: str, noise: float, seed: int) -> None:
        draw = random.Random(f"{kind} {seed}")
        self._width = WIDTHS[kind]
        self._sigma = noise * math.sqrt(N_SHOTS)
        self._name = f"{kind} {noise} {seed}"
        self.centre = [draw.uniform(0.1, 0.9) for _ in range(N_DIMS)]
        order = draw.sample(range(N_DIMS), N_DIMS)
        self.active, self.weak = order[:5], order[5:]

    def true(self, x: Sequence[float]) -> float:
        """What a point is worth; 0.8 at the top."""
        misses = [(value - c) ** 2 for value, c in zip(x, self.centre, strict=True)]
        *alone, j, k = self.active
        steep = 2 * self._width**2
        bumps = [math.exp(-misses[i] / steep) for i in alone]
        pair = math.exp(-(misses[j] + misses[k]) / steep)
        hills = sum(1 - misses[i] / 0.81 for i in self.weak)
        return 0.2 * (sum(bumps) + pair) * TOP + 0.2 * hills / 22 * TOP

    def picture(self, x: Sequence[float], shot: int) -> float:
        """What a picture scores; held-out shots have numbers from `N_SHOTS` on."""
        point = ",".join(f"{value:.9f}" for value in x)
        luck = _normal(f"{self._name} {point} {shot}") * self._sigma
        common = _normal(f"{self._name} {shot}") * self._sigma
        return self.true(x) + common + luck

    def trial(self, x: Sequence[float]) -> float:
        """The mean score of a whole trial."""
        return sum(self.picture(x, shot) for shot in range(N_SHOTS)) / N_SHOTS


def _normal(text: str) -> float:
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "big")).gauss(0, 1)
