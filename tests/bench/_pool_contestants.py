"""The contestants of the pool benchmark and the files they merge."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench._common import (
    PEER_HEAD,
    PEER_TAIL,
    RandomBlock,
    read_all_write_one,
    sync,
    write_model,
)

DROP_RATE = 0.1
SEED = 114514
MAX_ITERATIONS = 100
WIDTH = 320
EMBEDDING = 4 * WIDTH

METHODS: dict[str, tuple[str, Mapping[str, float]]] = {
    "mean": ("uniform_soup", {}),
    "tsd": ("tsd", {"drop_rate": DROP_RATE, "seed": SEED}),
    "tgmd": ("tgmd", {"drop_rate": DROP_RATE, "seed": SEED}),
}
"""Work -> MergeLab's method and its parameters."""

PEER = (
    PEER_HEAD
    + f"""
kind, out, *paths = sys.argv[1:]
models = [sd_mecha.model(path) for path in paths]
if kind == "mean":
    merged = sd_mecha.n_average(*models)
else:
    # Both switches are inverted in this release (ljleb/sd-mecha, ties.py at b8d4d88:
    # lines 120 and 90): vote_sgn=False elects by the number of signs, and
    # apply_stock=True leaves Model Stock out.
    merged = sd_mecha.add_ties_with_dare(
        models[0], *models[1:], probability={DROP_RATE}, rescale=False, alpha=1.0,
        seed={SEED}, k=1.0, vote_sgn=False, apply_stock=True,
        apply_median=kind == "tgmd", maxiter={MAX_ITERATIONS}, ftol=1e-20,
    )
sd_mecha.merge(
    merged, output=out, merge_device="cpu", merge_dtype=torch.float32,
    output_device="cpu", output_dtype=torch.float16,
)
"""
    + PEER_TAIL
)
"""sd-mecha 1.1.8, the same merge."""


@dataclass(frozen=True)
class Work:
    """A merge to measure.

    Attributes:
        kind: mean, tsd or tgmd.
        n_models: Models of the pool, a base not counted.
    """

    kind: str
    n_models: int

    @classmethod
    def parse(cls, text: str) -> Work:
        """Read mean8, tsd102 ..."""
        found = re.fullmatch(r"([a-z]+)(\d+)", text.strip())
        if found is None or found[1] not in METHODS:
            raise SystemExit(f"Work '{text}' is none of {', '.join(METHODS)} + number.")
        return cls(found[1], int(found[2]))

    @property
    def name(self) -> str:
        """As it is asked for."""
        return f"{self.kind}{self.n_models}"

    @property
    def has_base(self) -> bool:
        """Whether a base comes before the pool."""
        return self.kind != "mean"

    def paths(self, folder: Path) -> list[Path]:
        """The models, a base first."""
        base = [model_path(folder, 0)] if self.has_base else []
        return base + [model_path(folder, i + 1) for i in range(self.n_models)]


def model_path(folder: Path, index: int) -> Path:
    """Where the base (0) and the models (1 ...) lie."""
    name = f"m{index:03d}" if index else "base"
    return folder / f"{name}.safetensors"


# Files


def pool_shape(key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an SD1 tensor in a UNet whose channel multipliers are all 1.

    Every level is as wide as the first, so that a level's input joined with a skip is
    twice that. The text encoder and the VAE stay.

    Args:
        key: Of the single-file layout.
        shape: In SD1: levels of 320, 640, 1280 and 1280 channels.
    """
    unet = "model.diffusion_model."
    if not key.startswith(unet):
        return shape
    if ".time_embed." in key or not shape:
        return shape
    is_joined = "output_blocks" in key and (
        ".in_layers.0." in key
        or ((".in_layers.2." in key or ".skip_connection." in key) and len(shape) > 1)
    )
    first = shape[0] if shape[0] < 16 else WIDTH
    second = 2 * WIDTH if is_joined else WIDTH
    if ".in_layers.0." in key and is_joined:
        return (2 * WIDTH,)
    if ".ff.net.0.proj." in key:
        first = 8 * WIDTH
    if len(shape) == 1:
        return (first,)
    if ".emb_layers." in key or ".ff.net.2." in key:
        second = EMBEDDING
    elif ".attn2.to_k." in key or ".attn2.to_v." in key or shape[1] < 16:
        second = shape[1]
    return (first, second, *shape[2:])


def pool_shapes(*, is_full: bool) -> list[tuple[str, str, tuple[int, ...]]]:
    """Key, dtype and shape of every tensor of a model of the pool.

    Args:
        is_full: 318 million values; else every side from 16 up is divided by 8.
    """
    from tests.support.checkpoints import golden_rows, golden_shape

    shapes = []
    for row in golden_rows("sd1"):
        if row["treatment"] == "ema":
            continue
        dtype = "F16" if row["treatment"] == "merge" else row["dtype"]
        shape = pool_shape(row["key"], golden_shape(row))
        if not is_full:
            shape = tuple(side if side < 16 else side // 8 for side in shape)
        shapes.append((row["key"], dtype, shape))
    return shapes


def generate(path: Path, index: int, *, is_full: bool) -> None:
    """Write the base, or a fine-tune of it: the base plus small differences."""
    base = RandomBlock(0, 0.02)
    delta = RandomBlock(index, 0.001)

    def values(n_elements: int):  # type: ignore[no-untyped-def]
        theta = base.take(n_elements)
        return theta + delta.take(n_elements) if index else theta

    write_model(path, pool_shapes(is_full=is_full), values)


# Contestants: (work, models, output, bytes of memory)


def run_copy(work: Work, paths: Sequence[Path], out: Path, n_bytes: int) -> None:
    """Read every model once and write one."""
    read_all_write_one(paths, out)


def run_mergelab(work: Work, paths: Sequence[Path], out: Path, n_bytes: int) -> None:
    """MergeLab, as the command line calls it with `--components all`."""
    from lib_merge.core.blocks import Component
    from lib_merge.core.recipe import Setting, simple_recipe
    from lib_merge.engine.run import RunOptions
    from lib_merge.engine.save import merge_to_file

    method, params = METHODS[work.kind]
    recipe = simple_recipe(
        method,
        tuple(str(path) for path in paths),
        {name: Setting(value) for name, value in params.items()},
        components=tuple(Component),
    )
    options = RunOptions(budget_bytes=n_bytes)
    merge_to_file(recipe, out, options=options, overwrite=True)


def run_torch_loop(work: Work, paths: Sequence[Path], out: Path, n_bytes: int) -> None:
    """What one writes in five minutes: load, add up, divide, save (the mean only)."""
    import torch
    from safetensors.torch import load_file, save_file

    totals = {key: value.float() for key, value in load_file(str(paths[0])).items()}
    for path in paths[1:]:
        for key, tensor in load_file(str(path)).items():
            totals[key] += tensor
    n_models = len(paths)
    save_file(
        {key: (total / n_models).to(torch.float16) for key, total in totals.items()},
        str(out),
    )
    sync(out)


RUN: dict[str, Callable[[Work, Sequence[Path], Path, int], None]] = {
    "copy": run_copy,
    "mergelab_known": run_mergelab,
    "mergelab_unknown": run_mergelab,
    "torch_loop": run_torch_loop,
}


def link_models(folder: Path, n_files: int, n_models: int) -> None:
    """Let links to the files stand for the models beyond them."""
    for index in range(n_files + 1, n_models + 1):
        path = model_path(folder, index)
        if not path.exists():
            target = model_path(folder, (index - 1) % n_files + 1)
            path.symlink_to(target.name)


def distance_from_base(path: Path, base: Path) -> float:
    """L2 distance of a result to the base over some tensors of every part."""
    from safetensors import safe_open

    total = 0.0
    with safe_open(str(path), "pt") as a, safe_open(str(base), "pt") as b:
        keys = [key for key in sorted(b.keys()) if key.endswith("weight")][::40]
        for key in keys:
            if key not in a.keys():  # noqa: SIM118 - no mapping
                continue
            delta = a.get_tensor(key).double() - b.get_tensor(key).double()
            total += float(delta.square().sum())
    return total**0.5
