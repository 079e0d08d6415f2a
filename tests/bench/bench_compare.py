"""Measures comparing many models against reading them once.

    python -m tests.bench.bench_compare [--models 16] [--size full|small] [--rounds 3]
        [--threads N] [--memory 2GB] [--dir D] [--check 3]

The models are those of the pool benchmark: SD1.5's layout with 318 million values, 0.64
GB in float16, a base and fine-tunes of it; no links. Reading once is a plain loop with
blocks of 4 MB in one thread. Both are measured with the files off the page cache (the
system is told to drop them before the clock starts) and, if the memory holds them all,
in it. Each contestant runs in a process of its own, for its peak memory; seconds are of
the work itself, without starting Python and importing torch. With `--check N` so many
pairs are measured again, tensor by tensor in float64. Results are printed, never
judged.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bench._common import (
    COPY_BLOCK,
    Figures,
    evict,
    median,
    print_figures,
    run_alone,
)
from tests.bench._pool_contestants import generate, model_path

MODULE = "tests.bench.bench_compare"
NAMES = ("read", "compare")


def run_read(paths: Sequence[Path]) -> None:
    """Read every file once."""
    buffer = memoryview(bytearray(COPY_BLOCK))
    for path in paths:
        with path.open("rb", buffering=0) as source:
            while source.readinto(buffer):
                pass


def run_compare(paths: Sequence[Path], memory: str, threads: int | None) -> None:
    """Compare all of them, as the command line does."""
    from lib_merge.analysis.distances import CompareOptions, compare_files
    from lib_merge.cli._common import parse_size

    options = CompareOptions(budget_bytes=parse_size(memory), n_threads=threads)
    compare_files(paths, options=options)


def run_one(name: str, paths: Sequence[Path], args: argparse.Namespace) -> None:
    """Run one contestant in this process and print its figures."""
    if name == "read":
        print_figures(lambda: run_read(paths))
        return
    import torch

    import lib_merge.analysis.distances  # noqa: F401 - imported off the clock

    torch.empty(0)
    print_figures(lambda: run_compare(paths, args.memory, args.threads))


def measure(
    name: str, paths: Sequence[Path], args: argparse.Namespace, *, is_cold: bool
) -> Figures:
    """Run one contestant in a process of its own."""
    command = [sys.executable, "-m", MODULE, "--one", name, "--dir", str(args.dir)]
    command += ["--models", str(args.models), "--memory", args.memory]
    if args.threads:
        command += ["--threads", str(args.threads)]
    if is_cold:
        evict(paths)
    return run_alone(name, command, {})


def run_all(paths: Sequence[Path], args: argparse.Namespace, *, is_cold: bool) -> None:
    """Rounds over both, so that a busy moment hits either."""
    runs: dict[str, list[Figures]] = {name: [] for name in NAMES}
    load = os.getloadavg()[0]
    for _ in range(args.rounds):
        for name in NAMES:
            runs[name].append(measure(name, paths, args, is_cold=is_cold))
    base = median(run.seconds for run in runs["read"])
    print(f"{'off' if is_cold else 'in'} the page cache, load before {load:.1f}")
    for name in NAMES:
        best = min(run.seconds for run in runs[name])
        middle = median(run.seconds for run in runs[name])
        cpu = min(run.cpu for run in runs[name])
        peak = max(run.peak_mb for run in runs[name])
        print(
            f"{name:<10}{best:>8.2f} s best{middle:>8.2f} s median"
            f"{middle / base:>8.2f} x read{cpu:>8.2f} s of CPU{peak:>8.0f} MB peak"
        )


def check(paths: Sequence[Path], n_pairs: int) -> None:
    """Print the largest relative deviation of some pairs' distances."""
    from safetensors import safe_open

    from lib_merge.analysis.distances import compare_files

    keys = compare_files(paths[:2]).blocks  # Warm; and what is compared.
    found = compare_files(paths).part("all").l2()
    assert keys
    worst = 0.0
    for number in range(n_pairs):
        one = number % len(paths)
        two = (one + 1 + number * 7) % len(paths)
        if one == two:
            two = (two + 1) % len(paths)
        total = 0.0
        with (
            safe_open(str(paths[one]), "pt") as a,
            safe_open(str(paths[two]), "pt") as b,
        ):
            for key in a.keys():  # noqa: SIM118 - no mapping
                first = a.get_tensor(key)
                if first.is_floating_point() and first.element_size() == 2:
                    gap = first.double() - b.get_tensor(key).double()
                    total += float(gap.square().sum())
        worst = max(worst, abs(found[one, two] / total**0.5 - 1))
    print(f"{n_pairs} pairs differ from a float64 loop by at most {worst:.1e} of it")


def main() -> None:
    """Generate the files, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=16)
    parser.add_argument("--size", choices=("full", "small"), default="full")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--dir", type=Path, help="keep the files here")
    parser.add_argument("--check", type=int, default=0, metavar="PAIRS")
    parser.add_argument("--one", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--generate", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    is_kept = args.dir is not None
    args.dir = args.dir or Path(tempfile.mkdtemp(prefix="merge-bench-"))
    paths = [model_path(args.dir, index) for index in range(args.models)]
    if args.generate is not None:
        generate(paths[args.generate], args.generate, is_full=args.size == "full")
        return
    if args.one:
        run_one(args.one, paths, args)
        return
    args.dir.mkdir(parents=True, exist_ok=True)
    try:
        for index, path in enumerate(paths):
            if not path.exists():
                # In a process of its own: a child's peak memory starts at its parent's.
                command = [sys.executable, "-m", MODULE, "--generate", str(index)]
                command += ["--dir", str(args.dir), "--models", str(args.models)]
                subprocess.run([*command, "--size", args.size], check=True)
        size = paths[0].stat().st_size
        print(f"{args.models} files of {size / 1e9:.2f} GB, {os.cpu_count()} cores")
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        run_all(paths, args, is_cold=True)
        if args.models * size < 0.7 * memory:
            run_read(paths)
            run_all(paths, args, is_cold=False)
        if args.check:
            check(paths, args.check)
    finally:
        if not is_kept:
            shutil.rmtree(args.dir)


if __name__ == "__main__":
    main()
