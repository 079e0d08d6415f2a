"""A study of 300 trials on the demo models, killed ten times; memory and overhead.

    python -m tests.bench.bench_resilience [--trials 300] [--kills 10] [--out DIR]

Prints: kills, trials, whether every trial and the best equal those of an uninterrupted
run bit for bit, the growth of resident memory between trial 50 and the last, the share
of a trial of 20 pictures that is neither rendering nor scoring, and what a merge takes
beside the plain copy of the bytes it changes, and how long two workers need for what
one does.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.autombw.payloads import read_payloads
from lib_merge.autombw.preflight import new_settings
from lib_merge.autombw.pruning import PruningSettings
from lib_merge.autombw.records import KILLED
from lib_merge.autombw.settings import StudySettings
from lib_merge.autombw.stopping import StoppingSettings
from lib_merge.autombw.study import Study, create_study, open_study
from lib_merge.demo import MODEL_A, MODEL_B, PAYLOADS_DIR

if TYPE_CHECKING:
    from lib_merge.hosts.diffusers import DiffusersHost

ROOT = Path(__file__).parents[2]

N_PAYLOADS = 5
"""Prompts of a study; with four pictures each, 20 a trial."""

NEVER = PruningSettings(is_on=False)

WARM_TRIALS = 12
"""Trials ahead of those whose overhead is counted: the sampler must be at work."""


def demo_settings(
    name: str,
    *,
    n_trials: int,
    n_each: int,
    sampler: str,
    n_payloads: int = N_PAYLOADS,
) -> StudySettings:
    """A study of the demo models, with so many pictures a prompt."""
    payloads = [
        replace(payload, n_iter=n_each, batch_size=1)
        for payload in read_payloads([PAYLOADS_DIR])[:n_payloads]
    ]
    return new_settings(
        name,
        "weighted_sum",
        [str(MODEL_A), str(MODEL_B)],
        payloads=payloads,
        scorer="demo_judge",
        sampler=sampler,
        n_trials=n_trials,
        n_held_out=1,
        n_finalists=2,
        pruning=PruningSettings(is_on=n_each == 1),
        stopping=StoppingSettings(n_without_gain=0),
    )


def start(study: Study, log: Path, *more: str) -> subprocess.Popen[bytes]:
    """Run a study in a process of its own."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "tests.bench._resilience_worker"]
    return subprocess.Popen(
        [*words, str(study.folder), str(log), *more],
        cwd=ROOT,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def run_whole(study: Study, log: Path) -> list[list[float]]:
    """Run to the end; the log's lines."""
    if start(study, log).wait() != 0:
        raise SystemExit(f"The study in {study.folder} failed.")
    return [json.loads(line) for line in log.read_text().splitlines()]


def run_killed(study: Study, log: Path, n_kills: int, moments: random.Random) -> int:
    """Run to the end with SIGKILL at random moments; how often it struck."""
    n_trials = study.settings.n_trials
    stops = sorted(moments.sample(range(1, n_trials), n_kills))
    n_struck = 0
    for stop in stops:
        process = start(study, log)
        while process.poll() is None and n_done(study) < stop:
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 1.5))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            n_struck += 1
        process.wait()
    run_whole(study, log)
    return n_struck


def n_done(study: Study) -> int:
    """Attempts whose record is stored."""
    return sum(1 for _ in study.folder.glob("trials/*/record.json"))


def history(study: Study) -> list[tuple[int, dict[str, float], float | None, str]]:
    """What every slot came to."""
    records = open_study(study.folder).records()
    done = [r for r in records if r.score is not None]
    return sorted((r.slot, r.point, r.score, r.state) for r in done)


def memory_growth(lines: list[list[float]]) -> float:
    """Of resident memory, from around trial 50 to the end, in percent."""
    early = [line[1] for line in lines if 45 <= line[0] <= 55] or [lines[0][1]]
    late = [line[1] for line in lines[-10:]]
    return 100.0 * (statistics.median(late) / statistics.median(early) - 1.0)


def overhead(lines: list[list[float]]) -> tuple[float, float, float]:
    """Share of a trial beside rendering and scoring, of it merging; trial seconds."""
    late = [line for line in lines if line[0] > WARM_TRIALS]
    rest = [(line[2] - line[3] - line[4]) / line[2] for line in late]
    merging = [line[5] / line[2] for line in late]
    seconds = [line[2] for line in late]
    return (
        statistics.median(rest),
        statistics.median(merging),
        statistics.median(seconds),
    )


def kill_test(folder: Path, args: argparse.Namespace) -> None:
    """Print the kill test's figures."""
    settings = demo_settings(
        "demo",
        n_trials=args.trials,
        n_each=1,
        sampler=args.sampler,
        n_payloads=args.pictures,
    )
    whole = create_study(folder / "whole", settings)
    began = time.perf_counter()
    lines = run_whole(whole, folder / "whole.log")
    seconds = time.perf_counter() - began
    killed = create_study(folder / "killed", settings)
    moments = random.Random(args.seed)
    n_struck = run_killed(killed, folder / "killed.log", args.kills, moments)
    one, other = open_study(whole.folder), open_study(killed.folder)
    lost = sum(r.state == KILLED for r in other.records())
    best = one.result(), other.result()
    same_best = all(best) and best[0].best.point == best[1].best.point  # type: ignore[union-attr]
    print(f"trials {args.trials}, kills {n_struck}, attempts lost {lost}")
    print(f"every trial equal bit for bit: {history(one) == history(other)}")
    print(f"best equal: {bool(same_best)}")
    print(f"uninterrupted run: {seconds:.0f} s")
    print(f"resident memory, trial 50 to {args.trials}: {memory_growth(lines):+.2f} %")


def overhead_test(folder: Path, args: argparse.Namespace) -> None:
    """Print what a trial of 20 pictures takes beside rendering and scoring."""
    settings = demo_settings(
        "overhead", n_trials=args.timed, n_each=4, sampler=args.sampler
    )
    study = create_study(folder / "overhead", settings)
    lines = run_whole(study, folder / "overhead.log")
    rest, merging, seconds = overhead(lines)
    print(
        f"beside rendering and scoring: {100 * rest:.2f} % of a trial of 20 pictures "
        f"({seconds:.2f} s), merging alone {100 * merging:.2f} %"
    )


def workers_test(folder: Path, args: argparse.Namespace) -> None:
    """Print what two workers need for a search beside what one needs."""
    n_trials = 2 * args.timed
    rates = {}
    for n_workers in (1, 2):
        name = f"workers{n_workers}"
        settings = demo_settings(
            name, n_trials=n_trials, n_each=2, sampler=args.sampler
        )
        study = create_study(folder / name, replace(settings, pruning=NEVER))
        crew = [start(study, folder / f"{name}.log")]
        if n_workers == 2:
            crew.append(start(study, folder / f"{name}-helper.log", "helper"))
        if any(process.wait() != 0 for process in crew):
            raise SystemExit(f"The study in {study.folder} failed.")
        records = open_study(study.folder).records()
        assert sorted(r.slot for r in records if r.is_complete) == list(range(n_trials))
        # A worker's first trial loads the model, and imports what is imported late.
        ends = sorted(record.finished for record in records)[n_workers - 1 :]
        rates[n_workers] = (ends[-1] - ends[0]) / (len(ends) - 1)
    print(
        f"{n_trials} trials of {2 * N_PAYLOADS} pictures: {rates[1]:.2f} s a trial "
        f"with one worker, {rates[2]:.2f} s with two, {rates[2] / rates[1]:.2f} of it "
        f"({os.cpu_count()} processors)"
    )


def merge_test(n_runs: int = 15) -> None:
    """Print a merge beside the plain copy of the bytes that it changes."""
    import torch

    from lib_merge.engine.live import LiveMerger
    from lib_merge.engine.run import RunOptions
    from lib_merge.hosts.diffusers import DiffusersHost

    torch.set_num_threads(1)
    settings = demo_settings("merge", n_trials=1, n_each=1, sampler="random")
    names = [axis.name for axis in settings.space.free]
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        host = DiffusersHost([MODEL_A.parent], Path(folder), Path(folder))
        merger = LiveMerger(host.loader)
        options = RunOptions(cache_bytes=1 << 30)

        def merge(point: dict[str, float]) -> tuple[float, int, int]:
            began = time.perf_counter()
            report = merger.merge(settings.recipe(point), options=options)
            return time.perf_counter() - began, report.n_changed_keys, report.n_bytes

        points = [{name: draw.random() for name in names} for _ in range(n_runs + 2)]
        merge(points[0])
        merge(points[1])
        runs = [merge(point) for point in points[2:]]
        _, n_keys, n_bytes = runs[-1]
        one = merge({**points[-1], "OUT05": 0.123})
        again = merge({**points[-1], "OUT05": 0.123})
        copy_s = statistics.median(_plain_copy(host) for _ in range(n_runs))
        merge_s = statistics.median(run[0] for run in runs)
        print(
            f"merge of {n_keys} tensors, {n_bytes / 1e6:.1f} MB: {1e3 * merge_s:.1f} "
            f"ms; plain copy {1e3 * copy_s:.1f} ms; {merge_s / copy_s:.2f} times"
        )
        print(f"one block changed: {one[1]} tensors; nothing changed: {again[1]}")
        merger.restore()


def _plain_copy(host: DiffusersHost) -> float:
    """Seconds to copy the loaded parameters from a twin of them in float16."""
    import torch

    pipe = host.loader.pipe  # type: ignore[attr-defined]
    pairs = [
        (parameter.data, parameter.data.half())
        for module in (pipe.unet, pipe.text_encoder)
        for parameter in module.parameters()
    ]
    began = time.perf_counter()
    with torch.no_grad():
        for target, source in pairs:
            target.copy_(source)
    return time.perf_counter() - began


def main() -> None:
    """Run everything, or one part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--pictures", type=int, default=5, help="a trial, when killed")
    parser.add_argument("--timed", type=int, default=24)
    parser.add_argument("--sampler", default="gp")
    parser.add_argument("--seed", type=int, default=20261125)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", choices=("kill", "overhead", "merge", "workers"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if args.only in (None, "merge"):
            merge_test()
        if args.only in (None, "overhead"):
            overhead_test(folder, args)
        if args.only in (None, "workers"):
            workers_test(folder, args)
        if args.only in (None, "kill"):
            kill_test(folder, args)


if __name__ == "__main__":
    main()
