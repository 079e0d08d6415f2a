"""Measures a full-size merge against copying, a plain torch loop and sd-mecha.

    python -m tests.bench.bench_merge [--peer-python PATH] [--size full|small]

All of it works on the same two generated files in one run, each contestant in a process
of its own (for its peak memory), each with the same policy: the output is synced to the
disk before the clock stops. Seconds are of the work itself, without starting Python and
importing torch. Results are printed, never judged.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench._common import (
    PEER_HEAD,
    PEER_TAIL,
    Figures,
    RandomBlock,
    median,
    print_figures,
    read_all_write_one,
    run_alone,
    sync,
    write_model,
)

ALPHA = 0.3
NAMES = ("copy", "mergelab_warm", "mergelab_cold", "torch_loop")


def generate(path: Path, seed: int, *, is_full: bool) -> None:
    """Write a float16 SD1.5-layout file: full size, or sides halved."""
    from tests.support.checkpoints import golden_rows, golden_shape

    shapes = []
    for row in golden_rows("sd1"):
        if row["treatment"] == "ema":
            continue
        shape = golden_shape(row)
        if not is_full:
            shape = tuple(side if side < 16 else side // 2 for side in shape)
        is_weight = row["treatment"] == "merge"
        shapes.append((row["key"], "F16" if is_weight else row["dtype"], shape))
    write_model(path, shapes, RandomBlock(seed, 0.02).take)


def run_copy(a: Path, b: Path, out: Path) -> None:
    """Read both files, write one of them."""
    read_all_write_one((a, b), out)


def run_mergelab(a: Path, b: Path, out: Path) -> None:
    """MergeLab itself, as the command line calls it."""
    from lib_merge.core.recipe import Setting, simple_recipe
    from lib_merge.engine.save import merge_to_file

    recipe = simple_recipe("weighted_sum", (str(a), str(b)), {"alpha": Setting(ALPHA)})
    merge_to_file(recipe, out, overwrite=True)


def run_mergelab_warm(a: Path, b: Path, out: Path) -> None:
    """The models' hashes are known from an earlier merge or from the WebUI."""
    run_mergelab(a, b, out)


def run_mergelab_cold(a: Path, b: Path, out: Path) -> None:
    """Nothing is known: both models are hashed, too."""
    run_mergelab(a, b, out)


def run_torch_loop(a: Path, b: Path, out: Path) -> None:
    """What one writes in five minutes: load both, loop, save."""
    import torch
    from safetensors.torch import load_file, save_file

    theta_a, theta_b = load_file(str(a)), load_file(str(b))
    merged = {}
    for key, tensor in theta_a.items():
        if tensor.dtype is torch.float16:
            mixed = torch.lerp(tensor.float(), theta_b[key].float(), ALPHA)
            merged[key] = mixed.half()
        else:
            merged[key] = tensor
    save_file(merged, str(out))
    sync(out)


PEER = (
    PEER_HEAD
    + """
a, b, out, alpha = sys.argv[1:5]
merged = sd_mecha.weighted_sum(sd_mecha.model(a), sd_mecha.model(b), alpha=float(alpha))
sd_mecha.merge(
    merged, output=out, merge_device="cpu", merge_dtype=torch.float32,
    output_device="cpu", output_dtype=torch.float16,
)
"""
    + PEER_TAIL
)

CONTESTANTS: dict[str, Callable[[Path, Path, Path], None]] = {
    name: globals()[f"run_{name}"] for name in NAMES
}


def run_one(name: str, a: Path, b: Path, out: Path) -> None:
    """Run one contestant in this process and print its figures."""
    if name != "copy":
        import torch
        from safetensors.torch import load_file  # noqa: F401 - imported off the clock

        import lib_merge.engine.save  # noqa: F401

        torch.empty(0)
    print_figures(lambda: CONTESTANTS[name](a, b, out))


def measure(name: str, folder: Path, peer: str | None) -> Figures:
    """Run one contestant in a process of its own."""
    a, b, out = (str(folder / f"{n}.safetensors") for n in ("a", "b", "out"))
    Path(out).unlink(missing_ok=True)
    cache = folder / "cache"
    if name == "mergelab_cold":
        shutil.rmtree(cache, ignore_errors=True)
    if name == "sd_mecha":
        assert peer is not None
        command = [peer, "-c", PEER, a, b, out, str(ALPHA)]
    else:
        command = [sys.executable, "-m", "tests.bench.bench_merge", "--one", name]
        command += ["--dir", str(folder)]
    return run_alone(name, command, {"MERGELAB_CACHE_DIR": str(cache)})


def report(name: str, runs: list[Figures], base: float) -> None:
    """Print the best and the median run of a contestant."""
    best = min(run.seconds for run in runs)
    middle = median(run.seconds for run in runs)
    peak = max(run.peak_mb for run in runs)
    cpu = min(run.cpu for run in runs)
    print(
        f"{name:<16}{best:>8.2f} s best{middle:>8.2f} s median"
        f"{middle / base:>8.2f} x copy{cpu:>8.2f} s of CPU{peak:>9.0f} MB peak"
    )


def main() -> None:
    """Generate the files, run every contestant in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", help="a Python with sd-mecha 1.1.8")
    parser.add_argument("--size", choices=("full", "small"), default="full")
    parser.add_argument("--dir", type=Path, help="keep the files here")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--generate", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    folder = args.dir or Path(tempfile.mkdtemp(prefix="merge-bench-"))
    a, b, out = (folder / f"{n}.safetensors" for n in ("a", "b", "out"))
    if args.generate:
        path = a if args.generate == 1 else b
        generate(path, args.generate, is_full=args.size == "full")
        return
    if args.one:
        run_one(args.one, a, b, out)
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for seed, path in ((1, a), (2, b)):
            if not path.exists():
                # In a process of its own: a child's peak memory starts at its parent's.
                command = [sys.executable, "-m", "tests.bench.bench_merge"]
                command += ["--generate", str(seed), "--dir", str(folder)]
                subprocess.run([*command, "--size", args.size], check=True)
        run_all(folder, args)
    finally:
        if args.dir is None:
            shutil.rmtree(folder)


def run_all(folder: Path, args: argparse.Namespace) -> None:
    """Rounds over all contestants, so that a busy moment hits each of them."""
    names = [*NAMES, *(["sd_mecha"] if args.peer_python else [])]
    size = (folder / "a.safetensors").stat().st_size
    print(f"two files of {size / 1e9:.2f} GB, {os.cpu_count()} cores, page cache warm")
    print("the output is synced (fsync) before the clock stops, for all alike")
    measure("copy", folder, args.peer_python)
    measure("mergelab_cold", folder, args.peer_python)
    runs: dict[str, list[Figures]] = {name: [] for name in names}
    for _ in range(args.rounds):
        for name in names:
            runs[name].append(measure(name, folder, args.peer_python))
    base = median(run.seconds for run in runs["copy"])
    for name in names:
        report(name, runs[name], base)
    if "sd_mecha" in runs:
        peer = median(run.seconds for run in runs["sd_mecha"])
        for name in ("mergelab_warm", "mergelab_cold"):
            mine = median(run.seconds for run in runs[name])
            print(f"{name} is {peer / mine:.1f} times faster than sd-mecha")


if __name__ == "__main__":
    main()
