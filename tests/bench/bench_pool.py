"""Measures merges of pools of models against copying, a torch loop and sd-mecha.

    python -m tests.bench.bench_pool [--peer-python PATH] [--rounds N] [--dir D]
        [--work mean8,tsd8,tgmd8,tsd102] [--memory 2GB]

The models are generated: SD1.5's single-file layout with all channel multipliers 1 (318
million values, 0.64 GB in float16), a base and fine-tunes of it; links stand for the
models beyond `--files`. Each contestant runs in a process of its own (for its peak
memory) and syncs its output to the disk before the clock stops; everything but schedule
constants and ids is blended, the VAE included. Seconds are of the work itself, without
starting Python and importing torch. Rounds go over all contestants in turn. Results are
printed, never judged.

The peer needs an environment of its own: a venv with torch 2.13.0 and sd-mecha 1.1.8.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench._common import (
    Figures,
    median,
    print_figures,
    run_alone,
)
from tests.bench._pool_contestants import (
    METHODS,
    PEER,
    RUN,
    Work,
    distance_from_base,
    generate,
    link_models,
    model_path,
)

WORK = "mean8,tsd8,tgmd8,tsd102"
MODULE = "tests.bench.bench_pool"


@dataclass(frozen=True)
class Bench:
    """What one invocation measures.

    Attributes:
        folder: Where the models lie and the outputs go.
        memory: MergeLab's budget, as its command line takes it.
        peer: A Python with sd-mecha, or None.
        peer_models: The largest pool that the peer is given: it holds one tensor of
            every model several times over.
        rounds: Rounds over all contestants.
        peer_rounds: Rounds that the peer takes part in.
    """

    folder: Path
    memory: str
    peer: str | None
    peer_models: int
    rounds: int
    peer_rounds: int


@dataclass
class Results:
    """The runs of one work by contestant, what came out, and the load before."""

    work: Work
    runs: dict[str, list[Figures]] = field(default_factory=dict)
    distances: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    load: float = field(default_factory=lambda: os.getloadavg()[0])

    def seconds(self, name: str) -> float:
        """The median."""
        return median(run.seconds for run in self.runs[name])


def contestants(bench: Bench, work: Work) -> tuple[list[str], list[str]]:
    """Who takes part in a work, and why others do not."""
    from lib_merge.methods import methods

    names, notes = ["copy"], []
    method = METHODS[work.kind][0]
    if any(known.id == method for known in methods()):
        names.append("mergelab_known")
        if work.n_models <= bench.peer_models:
            names.append("mergelab_unknown")
        else:
            notes.append("hashes unknown: not run, a link is hashed with its file")
    else:
        notes.append(f"MergeLab has no method '{method}' here")
    if work.kind == "mean":
        names.append("torch_loop")
    if bench.peer is None:
        notes.append("sd-mecha: not run (no --peer-python)")
    elif work.n_models > bench.peer_models:
        notes.append(
            f"sd-mecha: not run, {work.n_models} models are over --peer-models "
            f"{bench.peer_models}"
        )
    else:
        names.append("sd_mecha")
    return names, notes


def measure(bench: Bench, work: Work, name: str, results: Results) -> Figures:
    """Run one contestant in a process of its own; the first output is looked at."""
    out = bench.folder / "out.safetensors"
    out.unlink(missing_ok=True)
    cache = bench.folder / "cache"
    if name == "mergelab_unknown":
        shutil.rmtree(cache, ignore_errors=True)
    paths = [str(path) for path in work.paths(bench.folder)]
    if name == "sd_mecha":
        command = [str(bench.peer), "-c", PEER, work.kind, str(out), *paths]
    else:
        command = [sys.executable, "-m", MODULE, "--one", name, "--work", work.name]
        command += ["--dir", str(bench.folder), "--memory", bench.memory]
    figures = run_alone(name, command, {"MERGELAB_CACHE_DIR": str(cache)})
    if name not in results.distances:
        # In a process of its own: a child's peak memory starts at its parent's.
        look = [sys.executable, "-m", MODULE, "--distance", "--dir", str(bench.folder)]
        found = subprocess.run(look, capture_output=True, text=True, check=True)
        results.distances[name] = float(json.loads(found.stdout))
    out.unlink()
    return figures


def run_work(bench: Bench, work: Work) -> Results:
    """Read and hash every model, then go round."""
    names, notes = contestants(bench, work)
    warm = [sys.executable, "-m", MODULE, "--warm", "--work", work.name]
    cache = {"MERGELAB_CACHE_DIR": str(bench.folder / "cache")}
    run_alone("warming up", [*warm, "--dir", str(bench.folder)], cache)
    results = Results(work, notes=notes)
    for index in range(bench.rounds):
        for name in names:
            if name == "sd_mecha" and index >= bench.peer_rounds:
                continue
            figures = measure(bench, work, name, results)
            results.runs.setdefault(name, []).append(figures)
    return results


def report(results: Results) -> None:
    """Print the table of one work."""
    print(f"\n{results.work.name}: load {results.load:.1f} before")
    print(
        f"{'':<18}{'best':>9}{'median':>9}{'x copy':>8}{'x peer':>8}{'CPU':>9}"
        f"{'peak':>9}{'distance from base':>21}"
    )
    copy = results.seconds("copy")
    peer = results.seconds("sd_mecha") if "sd_mecha" in results.runs else None
    for name, runs in results.runs.items():
        middle = results.seconds(name)
        ratio = f"{middle / peer:>8.3f}" if peer else f"{'-':>8}"
        distance = f"{results.distances[name]:>21.5f}" if name != "copy" else ""
        print(
            f"{name:<18}{min(run.seconds for run in runs):>7.2f} s{middle:>7.2f} s"
            f"{middle / copy:>8.2f}{ratio}{min(run.cpu for run in runs):>7.1f} s"
            f"{max(run.peak_mb for run in runs):>6.0f} MB{distance}"
        )
    for name in ("mergelab_known", "mergelab_unknown"):
        if peer and name in results.runs:
            times = peer / results.seconds(name)
            print(f"{name} is {times:.1f} times faster than sd-mecha")
    for note in results.notes:
        print(note)


def report_growth(all_results: list[Results]) -> None:
    """Print the cost of a model in a large pool against the same in a small one."""
    name = "mergelab_known"
    by_kind: dict[str, list[Results]] = {}
    for results in all_results:
        if name in results.runs:
            by_kind.setdefault(results.work.kind, []).append(results)
    for kind, found in by_kind.items():
        found.sort(key=lambda results: results.work.n_models)
        small = found[0]
        for large in found[1:]:
            each = [r.seconds(name) / r.work.n_models for r in (small, large)]
            cpu = [
                min(run.cpu for run in r.runs[name]) / r.work.n_models
                for r in (small, large)
            ]
            peaks = [max(run.peak_mb for run in r.runs[name]) for r in (small, large)]
            print(
                f"\n{kind}: {each[0]:.3f} s a model of {small.work.n_models}, "
                f"{each[1]:.3f} s a model of {large.work.n_models} "
                f"({each[1] / each[0]:.2f} times), CPU {cpu[0]:.2f}, {cpu[1]:.2f} s, "
                f"peak {peaks[0]:.0f} and {peaks[1]:.0f} MB with the same memory"
            )


def prepare(bench: Bench, works: list[Work], n_files: int, size: str) -> None:
    """Write the models that are not there yet; links stand for the rest."""
    bench.folder.mkdir(parents=True, exist_ok=True)
    n_models = max(work.n_models for work in works)
    for index in range(min(n_files, n_models) + 1):
        path = model_path(bench.folder, index)
        if not path.exists():
            # In a process of its own: a child's peak memory starts at its parent's.
            command = [sys.executable, "-m", MODULE, "--generate", str(index)]
            command += ["--dir", str(bench.folder), "--size", size]
            subprocess.run(command, check=True)
    link_models(bench.folder, n_files, n_models)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", help="a Python with sd-mecha 1.1.8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-rounds", type=int, help="fewer rounds for the peer")
    parser.add_argument(
        "--peer-models", type=int, default=16, help="the peer's largest pool"
    )
    parser.add_argument("--dir", type=Path, help="keep the files here")
    parser.add_argument("--files", type=int, default=8, help="models that are files")
    parser.add_argument("--size", choices=("full", "small"), default="full")
    parser.add_argument("--work", default=WORK, help=f"default {WORK}")
    parser.add_argument("--memory", default="2GB", help="MergeLab's budget")
    parser.add_argument("--one", choices=list(RUN), help=argparse.SUPPRESS)
    parser.add_argument("--generate", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--warm", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--distance", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Generate the models, run every contestant in turn, print the tables."""
    args = parse_arguments()
    if args.generate is not None:
        path = model_path(args.dir, args.generate)
        generate(path, args.generate, is_full=args.size == "full")
    elif args.distance:
        out = args.dir / "out.safetensors"
        print(json.dumps(distance_from_base(out, model_path(args.dir, 0))))
    elif args.warm:
        print_figures(lambda: know_hashes(Work.parse(args.work).paths(args.dir)))
    elif args.one:
        run_one(args)
    else:
        run_all(args)


def know_hashes(paths: list[Path]) -> None:
    """Hash the models for MergeLab's cache, which reads them into the page cache."""
    from lib_merge.checkpoint.hashes import file_sha256

    buffer = bytearray(1 << 22)
    for path in sorted({path.resolve() for path in paths}):
        file_sha256(path)
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def run_one(args: argparse.Namespace) -> None:
    """Run one contestant in this process and print its figures."""
    work = Work.parse(args.work)
    n_bytes = 0
    if args.one != "copy":
        import torch
        from safetensors.torch import load_file  # noqa: F401 - imported off the clock

        import lib_merge.engine.save
        import lib_merge.methods  # noqa: F401
        from lib_merge.cli._common import parse_size

        torch.empty(0)
        n_bytes = parse_size(args.memory)
    out = args.dir / "out.safetensors"
    print_figures(lambda: RUN[args.one](work, work.paths(args.dir), out, n_bytes))


def run_all(args: argparse.Namespace) -> None:
    """Measure every work and print as it comes."""
    works = [Work.parse(text) for text in args.work.split(",")]
    folder = args.dir or Path(tempfile.mkdtemp(prefix="pool-bench-"))
    bench = Bench(
        folder.absolute(),
        memory=args.memory,
        peer=args.peer_python,
        peer_models=args.peer_models,
        rounds=args.rounds,
        peer_rounds=args.rounds if args.peer_rounds is None else args.peer_rounds,
    )
    try:
        prepare(bench, works, args.files, args.size)
        size = model_path(bench.folder, 0).stat().st_size
        print(
            f"models of {size / 1e9:.2f} GB, {os.cpu_count()} cores, page cache warm, "
            f"memory {args.memory}; outputs are synced before the clock stops"
        )
        done = []
        for work in works:
            done.append(run_work(bench, work))
            report(done[-1])
        report_growth(done)
    finally:
        if args.dir is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
