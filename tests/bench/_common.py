"""What the benchmarks share: random files, processes of their own, medians."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

COPY_BLOCK = 4 << 20

PEER_HEAD = """
import json, os, resource, sys, time
import torch, sd_mecha
began, cpu_began = time.perf_counter(), time.process_time()
"""
"""Opens a program of the peer: what follows is on the clock."""

PEER_TAIL = """
handle = os.open(out, os.O_RDWR)
os.fsync(handle)
print(json.dumps({
    "seconds": time.perf_counter() - began,
    "cpu": time.process_time() - cpu_began,
    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""
"""Closes it: the file `out` is on the disk before the clock stops."""


@dataclass(frozen=True)
class Figures:
    """One run of a contestant.

    Attributes:
        seconds: Wall time of the work, without starting Python and importing.
        cpu: Seconds of CPU over all threads.
        peak_mb: Peak resident memory of the process, imports included.
    """

    seconds: float
    cpu: float
    peak_mb: float


def median(values: Iterable[float]) -> float:
    """The middle value; the upper one of two."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def sync(path: Path) -> None:
    """Wait until a file is on the disk."""
    handle = os.open(path, os.O_RDWR)
    os.fsync(handle)
    os.close(handle)


def evict(paths: Iterable[Path], *, settle_s: float = 0.0) -> None:
    """Drop files from the page cache, so that whoever is next reads them off the disk.

    Args:
        paths: The files.
        settle_s: Seconds to wait afterwards: a virtual machine gives memory that was
            freed back to its host after a few seconds, and pays for getting it again.
            Whoever starts at once after a large file was deleted is spared that.
    """
    os.sync()
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)
    time.sleep(settle_s)


def read_all_write_one(paths: Sequence[Path], out: Path) -> None:
    """Read every file once and write the first: the least that a merge can do."""
    buffer = memoryview(bytearray(COPY_BLOCK))
    with out.open("wb", buffering=0) as target:
        for index, path in enumerate(paths):
            with path.open("rb", buffering=0) as source:
                while n_read := source.readinto(buffer):
                    if index == 0:
                        target.write(buffer[:n_read])
        os.fsync(target.fileno())


def print_figures(work: Callable[[], object]) -> None:
    """Run the work on the clock and print its figures for `run_alone` to read."""
    import resource

    began, cpu_began = time.perf_counter(), time.process_time()
    work()
    figures = Figures(
        seconds=time.perf_counter() - began,
        cpu=time.process_time() - cpu_began,
        peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )
    print(json.dumps(asdict(figures)))


def run_alone(name: str, command: Sequence[str], env: Mapping[str, str]) -> Figures:
    """Run a contestant in a process of its own.

    Args:
        name: For the message when it fails.
        command: Prints its figures as JSON on its last line.
        env: Added to this process's environment.
    """
    os.sync()
    done = subprocess.run(
        command, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{name} failed ({done.returncode}):\n{done.stderr[-2000:]}")
    return Figures(**json.loads(done.stdout.strip().splitlines()[-1]))


class RandomBlock:
    """Normal values of any number; one block, entered at random places, is enough.

    Args:
        seed: Another seed gives other values.
        scale: Their standard deviation.
    """

    def __init__(self, seed: int, scale: float) -> None:
        import torch

        self._places = torch.Generator().manual_seed(seed)
        self._block = torch.randn(1 << 22, generator=self._places) * scale

    def take(self, n_elements: int) -> Tensor:
        """The next values, float32."""
        import torch

        parts, left = [torch.empty(0)], n_elements
        while left > 0:
            half = len(self._block) // 2
            at = int(torch.randint(0, half, (1,), generator=self._places))
            parts.append(self._block[at : at + left])
            left -= len(parts[-1])
        return torch.cat(parts)


def write_model(
    path: Path,
    shapes: Iterable[tuple[str, str, tuple[int, ...]]],
    values: Callable[[int], Tensor],
) -> None:
    """Write a float16 checkpoint with the safetensors package.

    Args:
        path: The file to be.
        shapes: Key, dtype in the header (F32, I64 ...) and shape. What is `F16` gets
            values; constants and position ids count up.
        values: Gives so many values; called in the order of `shapes`.
    """
    import torch
    from safetensors.torch import save_file

    stored = {"F32": torch.float32, "I64": torch.int64, "I32": torch.int32}
    tensors = {}
    for key, dtype, shape in shapes:
        n_elements = 1
        for side in shape:
            n_elements *= side
        if dtype == "F16":
            flat = values(n_elements).to(torch.float16)
        else:
            flat = torch.arange(n_elements).to(stored[dtype])
        tensors[key] = flat.reshape(shape)
    save_file(tensors, str(path), metadata={"format": "pt"})
