"""Measures baking a LoRA into a file of SDXL's layout against copying that file.

    python -m tests.bench.bench_lora [--size full|half|small] [--rank 32] [--rounds 3]
        [--cold]

The model is random float16 in the real layout (full: 6.9 GB; half: every long side
halved, a quarter of that), the LoRA has kohya's names and changes every linear layer of
the UNet and the text encoders. Each contestant runs in a process of its own, and its
output is synced to the disk before the clock stops. The copy reads the model and writes
it, in blocks of 4 MB. With --cold everybody reads the files off the disk, and starts
from the same state of a virtual machine's memory. Results are printed, never judged.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from multiprocessing import Process
from pathlib import Path

from tests.bench._common import (
    RandomBlock,
    evict,
    median,
    print_figures,
    read_all_write_one,
    run_alone,
    write_model,
)

NAMES = ("copy", "bake_known", "bake_unknown", "torch_loop")
SETTLE_S = 12.0
SHRINK = {"full": 1, "half": 2, "small": 4}


def layout(size: str) -> list[tuple[str, str, tuple[int, ...]]]:
    """Key, type and shape of every tensor of the model."""
    from tests.support.checkpoints import golden_rows, golden_shape

    by = SHRINK[size]
    shapes = []
    for row in golden_rows("sdxl"):
        if row["treatment"] == "ema":
            continue
        shape = tuple(s if s < 16 else s // by for s in golden_shape(row))
        is_weight = row["treatment"] == "merge"
        shapes.append((row["key"], "F16" if is_weight else row["dtype"], shape))
    return shapes


def generate(folder: Path, size: str, rank: int) -> None:
    """Write the model m and the LoRA l."""
    import torch
    from safetensors.torch import save_file

    from lib_merge.lora.fit import matrix_sides
    from lib_merge.lora.targets import table_of

    shapes = layout(size)
    write_model(folder / "m.safetensors", shapes, RandomBlock(1, 0.02).take)
    shape_of = {key: shape for key, _, shape in shapes}
    draws = RandomBlock(2, 0.01)
    tensors = {}
    table = table_of("sdxl")
    assert table is not None
    for written in table.written():
        shape = shape_of.get(written.target.weight, ())
        if len(shape) != 2 or "embedding" in written.name:
            continue
        rows, columns = matrix_sides(written.target, shape)
        up, down = draws.take(rows * rank), draws.take(rank * columns)
        tensors[f"{written.name}.lora_up.weight"] = up.reshape(rows, rank).half()
        tensors[f"{written.name}.lora_down.weight"] = down.reshape(rank, columns).half()
        tensors[f"{written.name}.alpha"] = torch.tensor(float(rank)).half()
    save_file(tensors, str(folder / "l.safetensors"))


def run_copy(folder: Path, out: Path) -> None:
    """Read the model and write it."""
    read_all_write_one([folder / "m.safetensors"], out)


def run_bake_known(folder: Path, out: Path) -> None:
    """The files' hashes are known from an earlier merge or from the WebUI."""
    from lib_merge.engine.save import merge_to_file
    from lib_merge.formats.request import Lora, recipe_of_baking

    recipe = recipe_of_baking(
        str(folder / "m.safetensors"), [Lora(str(folder / "l.safetensors"))]
    )
    merge_to_file(recipe, out, overwrite=True)


def run_bake_unknown(folder: Path, out: Path) -> None:
    """Nothing is known: the model is hashed, too."""
    run_bake_known(folder, out)


def run_torch_loop(folder: Path, out: Path) -> None:
    """What one writes in five minutes: load both, loop, save."""
    import torch
    from safetensors.torch import load_file, save_file

    from lib_merge.lora.targets import table_of

    theta = load_file(str(folder / "m.safetensors"))
    lora = load_file(str(folder / "l.safetensors"))
    table = table_of("sdxl")
    assert table is not None
    for written in table.written():
        up = lora.get(f"{written.name}.lora_up.weight")
        if up is None:
            continue
        change = up.float() @ lora[f"{written.name}.lora_down.weight"].float()
        weight = theta[written.target.weight]
        if written.target.is_transposed:
            change = change.T
        first, last = written.target.rows.span(len(weight))
        part = weight[first:last]
        weight[first:last] = (part.float() + change.reshape(part.shape)).to(torch.half)
    save_file(theta, str(out))
    handle = os.open(out, os.O_RDWR)
    os.fsync(handle)
    os.close(handle)


def run_one(name: str, folder: Path) -> None:
    """Run a contestant in this process and print its figures."""
    out = folder / "out.safetensors"
    if name != "copy":
        import torch  # noqa: F401
    work = globals()[f"run_{name}"]
    print_figures(lambda: work(folder, out))


def rounds(folder: Path, names: list[str], n_rounds: int, *, is_cold: bool) -> None:
    """Run all contestants in turn and print a table."""
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    for number in range(n_rounds):
        for name in names:
            cache = folder / f"cache-{name}-{number}"
            if name == "bake_known":
                _remember(folder, cache)
            if is_cold:
                files = [folder / f"{n}.safetensors" for n in "ml"]
                evict(files, settle_s=SETTLE_S)
            command = [sys.executable, "-m", "tests.bench.bench_lora", "--one", name]
            command += ["--folder", str(folder)]
            figures = run_alone(name, command, {"MERGELAB_CACHE_DIR": str(cache)})
            found[name].append((figures.seconds, figures.cpu, figures.peak_mb))
            (folder / "out.safetensors").unlink()
            load = os.getloadavg()[0]
            print(f"{name:<14}{figures.seconds:8.2f} s   load {load:.1f}", flush=True)
    copy = median(seconds for seconds, _, _ in found["copy"])
    best_copy = min(seconds for seconds, _, _ in found["copy"])
    print(
        f"\n{'':<14}{'best':>8}{'median':>9}{'x copy':>8}{'(best)':>8}{'CPU':>8}",
        end="",
    )
    print(f"{'peak MB':>9}")
    for name, runs in found.items():
        middle, best = median(r[0] for r in runs), min(r[0] for r in runs)
        cpu, peak = median(r[1] for r in runs), max(r[2] for r in runs)
        shown = (best, middle, middle / copy, best / best_copy, cpu)
        print(f"{name:<14}" + "".join(f"{n:9.2f}" for n in shown) + f"{peak:9.0f}")


def _remember(folder: Path, cache: Path) -> None:
    """Put the files' hashes into a cache, as an earlier merge would have."""
    os.environ["MERGELAB_CACHE_DIR"] = str(cache)
    from lib_merge.checkpoint.hashes import file_sha256

    for name in ("m", "l"):
        file_sha256(folder / f"{name}.safetensors")


def main() -> None:
    """Generate the files and run everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=tuple(SHRINK), default="half")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="contestants, with commas between")
    parser.add_argument("--cold", action="store_true", help="files off the page cache")
    parser.add_argument("--folder", type=Path, help="where the files are kept")
    parser.add_argument("--one", choices=NAMES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        run_one(args.one, args.folder)
        return
    folder = args.folder or Path(tempfile.mkdtemp(prefix="bench-lora-"))
    folder.mkdir(exist_ok=True)
    names = args.only.split(",") if args.only else list(NAMES)
    try:
        if not (folder / "l.safetensors").exists():
            # In a process of its own: a child's peak memory includes its parent's.
            work = Process(target=generate, args=(folder, args.size, args.rank))
            work.start()
            work.join()
        sizes = [(folder / f"{n}.safetensors").stat().st_size / 1e9 for n in "ml"]
        print(f"model {sizes[0]:.2f} GB, LoRA {sizes[1]:.3f} GB", flush=True)
        rounds(folder, names, args.rounds, is_cold=args.cold)
    finally:
        if args.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
