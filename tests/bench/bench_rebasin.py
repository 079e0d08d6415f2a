"""Measures Git Re-Basin on generated models of full size, in a process of its own.

    python -m tests.bench.bench_rebasin [--arch sd1|sdxl] [--kind tuned|permuted|apart]

The pair is a random model and a fine-tune of it (`tuned`: a tenth of noise on top), the
fine-tune with every permutation of the spec drawn at random (`permuted`), or two random
models (`apart`, the hardest: no assignment is easy and every pass improves something).
Seconds are of the search with both measurements of the distance, without starting
Python and importing torch. Results are printed, never judged.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench._common import RandomBlock, print_figures, run_alone, write_model

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("tuned", "permuted", "apart")
NOISE = 0.1
"""Of a fine-tune, as a share of the weights' own size."""


def layout(arch_id: str) -> list[tuple[str, str, tuple[int, ...]]]:
    """Keys, types and shapes of the real layout, without the EMA copy and the VAE."""
    from tests.support.checkpoints import golden_rows, golden_shape

    return [
        (row["key"], "F16", golden_shape(row))
        for row in golden_rows(arch_id)
        if row["treatment"] == "merge" and row["component"] != "vae"
    ]


class Tuned:
    """A model's values with some noise on top; both are drawn anew in one order."""

    def __init__(self, seed: int) -> None:
        self._model = RandomBlock(seed, 0.02)
        self._noise = RandomBlock(seed + 100, 0.02 * NOISE)

    def take(self, n_elements: int) -> Tensor:
        """The next values."""
        return self._model.take(n_elements) + self._noise.take(n_elements)


def generate(folder: Path, arch_id: str, kind: str) -> None:
    """Write the pair."""
    shapes = layout(arch_id)
    a, b = folder / "a.safetensors", folder / "b.safetensors"
    write_model(a, shapes, RandomBlock(1, 0.02).take)
    if kind == "apart":
        write_model(b, shapes, RandomBlock(2, 0.02).take)
        return
    write_model(b, shapes, Tuned(1).take)
    if kind == "permuted":
        from lib_merge.analysis.rebasin.align import save_aligned
        from lib_merge.analysis.rebasin.matching import Matching
        from lib_merge.analysis.rebasin.pair import open_pair

        pair = open_pair(a, b)
        drawn = Matching(pair.spec.random(1), "identity", (0.0,), {}, True)
        save_aligned(pair, drawn, folder / "p.safetensors")
        (folder / "p.safetensors").replace(b)


def run_one(folder: Path, args: argparse.Namespace) -> None:
    """Search, and print the figures."""
    import torch

    from lib_merge.analysis.rebasin.matching import MatchOptions, match_pair
    from lib_merge.analysis.rebasin.pair import open_pair
    from lib_merge.analysis.rebasin.report import report_of
    from lib_merge.cli._progress import TerminalProgress

    torch.empty(0)
    options = MatchOptions(
        iterations=args.iterations,
        budget_bytes=args.memory << 20,
        device=args.device,
    )
    pair = open_pair(folder / "a.safetensors", folder / "b.safetensors")

    def work() -> None:
        matching = match_pair(pair, options, progress=TerminalProgress())
        report = report_of(pair, matching)
        moved = sum(move.n_moved > 0 for move in report.moves)
        whole = report.distances[-1]
        log = {
            "start": matching.start,
            "sweeps": len(matching.scores) - 1,
            "settled": matching.is_settled,
            "moved": moved,
            "before": whole.before.distance,
            "after": whole.after.distance,
            "scores": matching.scores,
        }
        (folder / "log.json").write_text(json.dumps(log), encoding="utf-8")

    print_figures(work)


def main() -> None:
    """Generate the pair, search, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", choices=("sd1", "sdxl"), default="sd1")
    parser.add_argument("--kind", choices=KINDS, default="tuned")
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--memory", type=int, default=2048, help="MB")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dir", type=Path, help="keep the files here")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--generate", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    folder = args.dir or Path(tempfile.mkdtemp(prefix="merge-bench-"))
    if args.generate:
        generate(folder, args.arch, args.kind)
        return
    if args.one:
        run_one(folder, args)
        return
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.bench.bench_rebasin"]
    command += ["--dir", str(folder), "--arch", args.arch, "--kind", args.kind]
    command += ["--iterations", str(args.iterations), "--device", args.device]
    command += ["--memory", str(args.memory)]
    try:
        if not (folder / "b.safetensors").exists():
            subprocess.run([*command, "--generate"], check=True)
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        began = time.strftime("%H:%M")
        figures = run_alone(args.kind, [*command, "--one"], {})
        log = json.loads((folder / "log.json").read_text(encoding="utf-8"))
        size = (folder / "a.safetensors").stat().st_size
        print(f"{args.arch}, {args.kind}: two files of {size / 1e9:.2f} GB")
        print(f"{os.cpu_count()} cores, load {load:.1f} at {began}, {args.device}")
        print(
            f"{figures.seconds:.1f} s, {figures.cpu:.1f} s of CPU, peak "
            f"{figures.peak_mb:.0f} MB with --memory {args.memory}MB"
        )
        print(
            f"from the {log['start']}, {log['sweeps']} sweeps, settled: "
            f"{log['settled']}, {log['moved']} permutations moved, L2 "
            f"{log['before']:.3f} to {log['after']:.3f}"
        )
    finally:
        if args.dir is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
