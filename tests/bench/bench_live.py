"""Measures merges into a model in memory against copying the bytes that they change.

    python -m tests.bench.bench_live [--arch sd1|sdxl] [--device cpu|cuda:0] [--runs 7]

Two or eight random float16 files with the keys and shapes of UNet and text encoders;
the live model is a dictionary of float16 parameters on the device. Every run merges
with other numbers in every block. "held" keeps the sources in memory (on a CPU in main
memory), "streamed" reads them anew from the files. "copy" copies as many bytes from
another set of tensors on the device: once for each source, and once for the result, is
the least that a merge moves. Results are printed, never judged.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench._common import RandomBlock, median, write_model
from tests.bench.bench_rebasin import layout

if TYPE_CHECKING:
    from torch import Tensor

METHODS = (("weighted_sum", 2), ("ties_soup", 8))


class Parameters:
    """A host's loader whose model is a dictionary of parameters.

    Args:
        device: Where they are.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._path: Path | None = None
        self._lock = threading.Lock()
        self.params: dict[str, Tensor] = {}

    def loaded(self) -> Path | None:
        """The file whose model is in memory."""
        return self._path

    def load(self, path: Path) -> None:
        """Load a file, unless it is loaded."""
        from safetensors.torch import load_file

        if path != self._path:
            self._path = path
            self.params = load_file(str(path), device=self._device)

    def identity(self) -> object:
        """Another one after every load."""
        return self._path

    def restore(self) -> None:
        """Nothing is given back here."""

    @contextmanager
    def edit(self) -> Iterator[Parameters]:
        """The parameters, to be written."""
        yield self

    def refusal(self) -> str | None:
        """Nothing speaks against writing."""
        return None

    def missing(self, keys: Sequence[str]) -> tuple[str, ...]:
        """Keys without a parameter."""
        return tuple(key for key in keys if key not in self.params)

    def write(self, key: str, start: int, values: Tensor) -> None:
        """Write values into a parameter."""
        flat = self.params[key].view(-1)
        flat[start : start + len(values)].copy_(values)


def timed(work: Callable[[], object], device: str) -> float:
    """Seconds that it takes, with everything that it leaves to a GPU."""
    import torch

    if device != "cpu":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def copy_seconds(params: dict[str, Tensor], device: str, n_runs: int) -> float:
    """To copy all parameters from twins of them."""
    twins = {key: tensor.clone() for key, tensor in params.items()}

    def copy() -> None:
        for key, tensor in params.items():
            tensor.copy_(twins[key])

    copy()
    return median(timed(copy, device) for _ in range(n_runs))


def merges(folder: Path, method: str, n_models: int, args: argparse.Namespace) -> None:
    """Print a method's figures."""
    from lib_merge.arch import detect_architecture
    from lib_merge.checkpoint.header import read_header
    from lib_merge.core.recipe import Setting, simple_recipe
    from lib_merge.engine.live import LiveMerger, LiveReport
    from lib_merge.engine.run import RunOptions
    from lib_merge.methods import methods

    paths = [folder / f"{i}.safetensors" for i in range(n_models)]
    blocks = detect_architecture(read_header(paths[0]).infos, where="").blocks
    name = methods().get(method).params[0].name
    draw = random.Random(0)
    loader = Parameters(args.device)

    def merge(merger: LiveMerger, options: RunOptions) -> LiveReport:
        values = tuple((block.id, draw.uniform(0.2, 0.8)) for block in blocks)
        setting = Setting(draw.uniform(0.2, 0.8), values)
        recipe = simple_recipe(method, tuple(map(str, paths)), {name: setting})
        return merger.merge(recipe, options=options)

    for kind, n_bytes in (("held", 64 << 30), ("streamed", 0)):
        work = partial(
            merge,
            LiveMerger(loader),
            RunOptions(cache_bytes=n_bytes, device=args.device),
        )
        work()
        report = work()
        seconds = median(timed(work, args.device) for _ in range(args.runs))
        copy = copy_seconds(loader.params, args.device, args.runs)
        print(
            f"{method} of {n_models}, {kind}: {report.n_changed_keys} tensors, "
            f"{report.n_bytes / 1e9:.2f} GB in {seconds:.3f} s; copy {copy:.3f} s; "
            f"{seconds / copy:.2f} times; by bytes moved "
            f"{(n_models + 1) / 2 * copy / seconds:.2f} of the copy's rate",
            flush=True,
        )


def main() -> None:
    """Generate files, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", choices=("sd1", "sdxl"), default="sd1")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--methods", default="weighted_sum")
    args = parser.parse_args()
    wanted = args.methods.split(",")
    chosen = [(name, n) for name, n in METHODS if name in wanted]
    with tempfile.TemporaryDirectory(prefix="bench-live-") as place:
        folder = Path(place)
        shapes = layout(args.arch)
        for i in range(max(n for _, n in chosen)):
            path = folder / f"{i}.safetensors"
            write_model(path, shapes, RandomBlock(i + 1, 0.02).take)
        print(f"{args.arch} on {args.device}, {os.cpu_count()} processors", flush=True)
        for method, n_models in chosen:
            merges(folder, method, n_models, args)


if __name__ == "__main__":
    main()
