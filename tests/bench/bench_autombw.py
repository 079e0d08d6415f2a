"""Measures what an AutoMBW search costs in pictures, against the peers' search.

    python -m tests.bench.bench_autombw --peer-python PATH [--seeds 5] [--store DIR]
        [--demo]

Landscapes with known tops (`_family`), or with --demo the demo models, whose pictures
are rendered and judged (`_demo_landscape`), are searched by

- hyperactive: Hyperactive v4's BayesianOptimizer as auto-MBW-rt sets it, in the peer's
  own Python (`_peer_hyperactive`), 120 whole trials of 12 pictures;
- random: random points, 120 whole trials, the same three start points as ours;
- optuna: Optuna's GPSampler, 120 whole trials, the same start points;
- mergelab: a study's own code with its defaults (`_autombw_runs`).

The first three choose the trial with the best score, as their users do; a study chooses
by its own rules, and the pictures of its held-out round are counted. For each rival:
how many pictures MergeLab renders until the true score of the point that it would
choose reaches (and from then on keeps) what the rival reaches in its 1440, and the true
scores at 1440 pictures each. Results are printed, never judged. What was measured is
kept in --store, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench._common import median
from tests.bench._demo_landscape import DemoLandscape
from tests.bench._family import N_SHOTS, WIDTHS, Landscape

N_TRIALS = 120
BUDGET = N_TRIALS * N_SHOTS
NOISES = (0.03, 0.1)
PEER = Path(__file__).with_name("_peer_hyperactive.py")
EVERY = 4
DEMO = "demo"

Curve = list[tuple[int, float]]
"""(pictures so far, true score of what would be chosen)."""


def landscape_of(kind: str, noise: float, seed: int) -> Landscape | DemoLandscape:
    """What is searched."""
    if kind == DEMO:
        return DemoLandscape(seed)
    return Landscape(kind, noise, seed)


def whole_trials(
    sampler: str, landscape: Landscape | DemoLandscape, seed: int
) -> Curve:
    """A sampler of a study on whole trials alone; the best score is chosen."""
    from lib_merge.autombw.search import Search, Slot
    from tests.bench._autombw_runs import bench_settings

    settings = bench_settings(sampler, seed, is_pruning=False)
    search = Search(settings.space.axes, sampler, seed)
    found: list[tuple[float, float]] = []
    starts = [dict(start.point) for start in settings.start_points()]
    for i in range(N_TRIALS):
        point = starts[i] if i < len(starts) else search.suggest()
        x = list(point.values())
        observed = landscape.trial(x)
        found.append((true_of_leader(landscape, x, observed, found), observed))
        search.tell(Slot(point, observed, is_start=i < len(starts)))
    return best_so_far(found)


def true_of_leader(
    landscape: Landscape | DemoLandscape,
    x: Sequence[float],
    observed: float,
    found: Sequence[Sequence[float]],
) -> float:
    """The true score of a point that leads now; nobody asks for that of another."""
    if all(observed > other for _, other in found):
        return landscape.true(x)
    return 0.0


def best_so_far(found: Sequence[Sequence[float]]) -> Curve:
    """The true score of the trial with the best score, after every whole trial."""
    curve: Curve = []
    best = (0.0, float("-inf"))
    for i, (true, observed) in enumerate(found, 1):
        best = max(best, (true, observed), key=lambda pair: pair[1])
        curve.append((i * N_SHOTS, best[0]))
    return curve


def mergelab(landscape: Landscape | DemoLandscape, seed: int) -> Curve:
    """A study with its defaults; the last entry is the winner of the held-out round."""
    from tests.bench._autombw_runs import Run, bench_settings

    run = Run(landscape, bench_settings("gp", seed, is_pruning=True))
    return [(choice.images, choice.true) for choice in run.go(BUDGET, every=EVERY)]


def hyperactive(peer: str, candidates: int) -> Callable[[str, float, int], Curve]:
    """The peer's search in its own Python."""

    def measure(kind: str, noise: float, seed: int) -> Curve:
        asked = "asked" if kind == DEMO else kind
        numbers = [str(n) for n in (noise, seed, N_TRIALS, candidates)]
        command = [peer, "-W", "ignore", str(PEER), asked, *numbers]
        if kind == DEMO:
            return best_so_far(answered(command, DemoLandscape(seed)))
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return best_so_far(json.loads(done.stdout.splitlines()[-1]))

    return measure


def answered(command: Sequence[str], landscape: DemoLandscape) -> list[list[float]]:
    """Run the peer, and tell it what the points that it asks for score."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        found: list[list[float]] = []
        for line in process.stdout:
            row = json.loads(line)
            if isinstance(row[0], list):
                return found  # Its own list of all trials, the last line.
            observed = landscape.trial(row)
            found.append([true_of_leader(landscape, row, observed, found), observed])
            process.stdin.write(json.dumps(found[-1]) + "\n")
            process.stdin.flush()
    raise SystemExit(f"The peer failed ({process.returncode}).")


def contestants(args: argparse.Namespace) -> dict[str, Callable[..., Curve]]:
    """Every contestant by name: (kind, noise, seed) -> its curve."""

    def ours(kind: str, noise: float, seed: int) -> Curve:
        return mergelab(landscape_of(kind, noise, seed), seed)

    def by(sampler: str) -> Callable[[str, float, int], Curve]:
        return lambda kind, noise, seed: whole_trials(
            sampler, landscape_of(kind, noise, seed), seed
        )

    found: dict[str, Callable[..., Curve]] = {"mergelab": ours}
    if not args.no_random:
        found["random"] = by("random")
    if not args.no_optuna:
        found["optuna"] = by("gp_optuna")
    if args.peer_python:
        found["hyperactive"] = hyperactive(args.peer_python, args.candidates)
    return found


def images_until(curve: Curve, score: float) -> int | None:
    """Pictures from which on the choice is at least so good; None when it never is."""
    reached: int | None = None
    for images, true in curve:
        if true < score:
            reached = None
        elif reached is None:
            reached = images
    return reached


def report(name: str, ours: Sequence[Curve], rivals: Sequence[Curve]) -> None:
    """Print one rival's line."""
    pairs = list(zip(ours, rivals, strict=True))
    needed = [images_until(curve, rival[-1][1]) for curve, rival in pairs]
    counted = sorted(2 * BUDGET if n is None else n for n in needed)
    better = sum(curve[-1][1] > rival[-1][1] for curve, rival in pairs)
    rival_score = sum(rival[-1][1] for rival in rivals) / len(rivals)
    our_score = sum(curve[-1][1] for curve in ours) / len(ours)
    middle = median(counted)
    print(
        f"  {name:<12} true {rival_score:.3f}  mergelab {our_score:.3f}  pictures "
        f"until as good: median {middle:5.0f} ({middle / BUDGET:.2f} of {BUDGET}), "
        f"worst {max(counted) if max(counted) < 2 * BUDGET else 'never'}; better at "
        f"equal pictures: {better} of {len(pairs)}"
    )


def measured(
    name: str, run: Callable[..., Curve], where: tuple[str, float, int], store: Path
) -> Curve:
    """A stored curve, or a new one that is stored."""
    kind, noise, seed = where
    path = store / f"{name}_{kind}_{noise}_{seed}.json"
    if not path.exists():
        path.write_text(json.dumps(run(kind, noise, seed)), encoding="utf-8")
    found: Curve = [tuple(p) for p in json.loads(path.read_text(encoding="utf-8"))]
    return found


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="bench_autombw", description=__doc__)
    parser.add_argument("--peer-python", help="a Python with hyperactive 4.5")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--no-optuna", action="store_true", help="leave Optuna's GP out"
    )
    parser.add_argument("--no-random", action="store_true")
    parser.add_argument("--demo", action="store_true", help="search the demo models")
    parser.add_argument("--store", type=Path, help="where results are kept")
    parser.add_argument(
        "--candidates",
        type=int,
        default=100_000,
        help="the peer's sampling; its users have 1000000, which takes far longer",
    )
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    store = args.store or Path(tempfile.mkdtemp(prefix="bench_autombw_"))
    store.mkdir(parents=True, exist_ok=True)
    runs = contestants(args)
    everything: dict[str, list[Curve]] = {name: [] for name in runs}
    fields = {DEMO: (0.0,)} if args.demo else dict.fromkeys(WIDTHS, NOISES)
    for kind, noises in fields.items():
        for noise in noises:
            curves: dict[str, list[Curve]] = {}
            for name, run in runs.items():
                places = [(kind, noise, seed) for seed in range(args.seeds)]
                curves[name] = [measured(name, run, p, store) for p in places]
                everything[name] += curves[name]
            print(f"{kind}, noise {noise:g}, {args.seeds} seeds:", flush=True)
            for name in list(runs)[1:]:
                report(name, curves["mergelab"], curves[name])
    print("all:")
    for name in list(runs)[1:]:
        report(name, everything["mergelab"], everything[name])
    return 0


if __name__ == "__main__":
    sys.exit(main())
