"""Measures a full-size merge against copying, a plain torch loop and sd-mecha.

    python -m tests.bench.bench_merge [--peer-python PATH] [--size full|small]

All of it works on the same two generated files in one run, each contestant in a process
of its own (for its peak memory), each with the same policy: the output is synced to the
disk before the clock stops. Seconds are of the work itself, without starting Python and
importing torch. Results are printed, never judged.
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
from collections.abc import Callable
from pathlib import Path

ALPHA = 0.3
COPY_BLOCK = 4 << 20
NAMES = ("copy", "mergelab_warm", "mergelab_cold", "torch_loop")


def generate(path: Path, seed: int, *, is_full: bool) -> None:
    """Write a float16 SD1.5-layout file: full size, or sides halved."""
    import torch

    from lib_merge.checkpoint.writer import PendingFile, layout_of
    from lib_merge.core.blocks import TensorInfo
    from lib_merge.core.dtypes import DType
    from tests.support.checkpoints import golden_rows, golden_shape

    tensors = []
    for row in golden_rows("sd1"):
        if row["treatment"] == "ema":
            continue
        shape = golden_shape(row)
        if not is_full:
            shape = tuple(side if side < 16 else side // 2 for side in shape)
        is_weight = row["treatment"] == "merge"
        dtype = DType.F16 if is_weight else DType.from_code(row["dtype"])
        tensors.append((row["key"], TensorInfo(dtype, shape)))
    layout = layout_of(tensors)
    header = layout.header_bytes({"format": "pt"})
    pending = PendingFile(path, len(header) + layout.n_tensor_bytes)
    pending.write_at(0, header)
    generator = torch.Generator().manual_seed(seed)
    block = (torch.randn(1 << 22, generator=generator) * 0.02).to(torch.float16)
    for key, info in layout.infos.items():
        data = _values(block, info.n_elements, info.dtype, generator)
        pending.write_at(len(header) + layout.starts[key], data)
    pending.commit(layout)


def _values(block, n_elements, dtype, generator) -> bytes:  # type: ignore[no-untyped-def]
    """Normal values; one random block, entered at random places, is random enough."""
    import torch

    if not dtype.is_float or dtype.size > 2:
        return (
            torch.arange(n_elements)
            .to(getattr(torch, dtype.torch_name))
            .numpy()
            .data.cast("B")
        )
    parts, left = [], n_elements
    while left > 0:
        at = int(torch.randint(0, len(block) // 2, (1,), generator=generator))
        parts.append(block[at : at + left])
        left -= len(parts[-1])
    return torch.cat(parts).view(torch.uint8).numpy().data


def run_copy(a: Path, b: Path, out: Path) -> None:
    """Read both files, write one of them."""
    buffer = memoryview(bytearray(COPY_BLOCK))
    with (
        a.open("rb", buffering=0) as one,
        b.open("rb", buffering=0) as two,
        out.open("wb", buffering=0) as target,
    ):
        while n_read := one.readinto(buffer):
            target.write(buffer[:n_read])
            two.readinto(buffer)
        os.fsync(target.fileno())


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


def sync(path: Path) -> None:
    """Wait until a file is on the disk."""
    handle = os.open(path, os.O_RDWR)
    os.fsync(handle)
    os.close(handle)


PEER = """
import json, os, resource, sys, time
import torch, sd_mecha
a, b, out, alpha = sys.argv[1:5]
began, cpu_began = time.perf_counter(), time.process_time()
merged = sd_mecha.weighted_sum(sd_mecha.model(a), sd_mecha.model(b), alpha=float(alpha))
sd_mecha.merge(
    merged, output=out, merge_device="cpu", merge_dtype=torch.float32,
    output_device="cpu", output_dtype=torch.float16,
)
handle = os.open(out, os.O_RDWR)
os.fsync(handle)
print(json.dumps({
    "seconds": time.perf_counter() - began,
    "cpu": time.process_time() - cpu_began,
    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""

CONTESTANTS: dict[str, Callable[[Path, Path, Path], None]] = {
    name: globals()[f"run_{name}"] for name in NAMES
}


def run_one(name: str, a: Path, b: Path, out: Path) -> None:
    """Run one contestant in this process and print its figures as JSON."""
    import resource

    if name != "copy":
        import torch
        from safetensors.torch import load_file  # noqa: F401 - imported off the clock

        import lib_merge.engine.save  # noqa: F401

        torch.empty(0)
    began, cpu_began = time.perf_counter(), time.process_time()
    CONTESTANTS[name](a, b, out)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak_mb": peak}))


def measure(name: str, folder: Path, peer: str | None) -> dict[str, float]:
    """Run one contestant in a process of its own."""
    a, b, out = (str(folder / f"{n}.safetensors") for n in ("a", "b", "out"))
    Path(out).unlink(missing_ok=True)
    os.sync()
    cache = folder / "cache"
    if name == "mergelab_cold":
        shutil.rmtree(cache, ignore_errors=True)
    env = {**os.environ, "MERGELAB_CACHE_DIR": str(cache)}
    if name == "sd_mecha":
        assert peer is not None
        command = [peer, "-c", PEER, a, b, out, str(ALPHA)]
    else:
        command = [sys.executable, "-m", "tests.bench.bench_merge", "--one", name]
        command += ["--dir", str(folder)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def report(name: str, runs: list[dict[str, float]], base: float) -> None:
    """Print the best and the median run of a contestant."""
    seconds = sorted(run["seconds"] for run in runs)
    best, median = seconds[0], seconds[len(seconds) // 2]
    peak = max(run["peak_mb"] for run in runs)
    cpu = min(run["cpu"] for run in runs)
    print(
        f"{name:<16}{best:>8.2f} s best{median:>8.2f} s median"
        f"{median / base:>8.2f} x copy{cpu:>8.2f} s of CPU{peak:>9.0f} MB peak"
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
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(args.rounds):
        for name in names:
            runs[name].append(measure(name, folder, args.peer_python))
    copy = sorted(run["seconds"] for run in runs["copy"])
    base = copy[len(copy) // 2]
    for name in names:
        report(name, runs[name], base)
    if "sd_mecha" in runs:
        peer = sorted(run["seconds"] for run in runs["sd_mecha"])[args.rounds // 2]
        for name in ("mergelab_warm", "mergelab_cold"):
            mine = sorted(run["seconds"] for run in runs[name])[args.rounds // 2]
            print(f"{name} is {peer / mine:.1f} times faster than sd-mecha")


if __name__ == "__main__":
    main()
