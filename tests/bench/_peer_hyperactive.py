"""Runs Hyperactive v4's Bayesian search as the peers set it; for the peer's own Python.

    PYTHON _peer_hyperactive.py KIND NOISE SEED N_TRIALS N_CANDIDATES

prints one JSON list: [true score, observed score] of every trial, in order. With the
kind "asked" it prints every point as a JSON list on a line of its own instead, and
reads that point's two scores, a JSON list too, from a line of its input. Settings are
those of auto-MBW-rt: eleven values a block (0, 0.1 ... 1), xi 0.3, one random first
point, every trial rendered whole. Its `sampling` setting is N_CANDIDATES.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _family import N_DIMS, Landscape


def asked(point: list[float]) -> tuple[float, float]:
    """What somebody else says that a point scores: true, observed."""
    print(json.dumps(point), flush=True)
    true, observed = json.loads(sys.stdin.readline())
    return true, observed


def looker(landscape: Landscape) -> Callable[[list[float]], tuple[float, float]]:
    """What a landscape says."""
    return lambda point: (landscape.true(point), landscape.trial(point))


def main(kind: str, noise: float, seed: int, n_trials: int, n_candidates: int) -> None:
    """Search one landscape and print what was found."""
    import numpy as np
    from hyperactive import Hyperactive
    from hyperactive.optimizers import BayesianOptimizer

    warnings.simplefilter("ignore")
    look = asked if kind == "asked" else looker(Landscape(kind, noise, seed))
    found: list[tuple[float, float]] = []

    def score(weights: dict[str, float]) -> float:
        found.append(look([float(weights[str(i)]) for i in range(N_DIMS)]))
        return found[-1][1]

    space = {str(i): list(np.linspace(0, 1, 11)) for i in range(N_DIMS)}
    sampler = BayesianOptimizer(
        xi=0.3,
        rand_rest_p=0,
        max_sample_size=10_000_000,
        sampling={"random": n_candidates},
    )
    search = Hyperactive(verbosity=False)
    search.add_search(
        score,
        space,
        optimizer=sampler,
        n_iter=n_trials,
        initialize={"random": 1},
        random_state=seed,
        # A point that was scored before costs no pictures there either.
        memory=True,
    )
    search.run()
    print(json.dumps(found))


if __name__ == "__main__":
    name, *numbers = sys.argv[1:]
    main(name, float(numbers[0]), *(int(n) for n in numbers[1:]))
