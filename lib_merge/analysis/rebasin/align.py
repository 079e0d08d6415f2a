"""Writes a model with its channels permuted: the same function, in A's order."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lib_merge
from lib_merge.analysis.rebasin.matching import Matching
from lib_merge.analysis.rebasin.pair import A, B, Pair, PairReader
from lib_merge.checkpoint.hashes import file_sha256, remember_sha256
from lib_merge.checkpoint.journal import remove_leftovers
from lib_merge.checkpoint.metadata import VERSION, WEBUI_MODELS, WEBUI_RECIPE
from lib_merge.checkpoint.writer import PendingFile, layout_of
from lib_merge.core.blocks import TensorInfo, Treatment
from lib_merge.core.ports import Progress
from lib_merge.engine.progress import NullProgress
from lib_merge.engine.save import FileSink, check_disk, check_output
from lib_merge.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lib_merge.analysis.rebasin.spec import Permutations

REBASIN = "mergelab_rebasin"
"""Metadata of an aligned file: what was aligned to what, and how."""


@dataclass(frozen=True)
class AlignedFile:
    """An aligned model that lies on the disk.

    Attributes:
        path: The file.
        sha256: Of the file.
    """

    path: Path
    sha256: str


def check_aligned_output(
    pair: Pair, output: str | os.PathLike[str], *, overwrite: bool = False
) -> Path:
    """The place of an aligned file, once it is seen to be possible.

    Args:
        pair: The models.
        output: A .safetensors file to be.
        overwrite: Whether an existing file may be replaced.

    Raises:
        OutputError: It is not.
        DiskFullError: There is no room for it.
    """
    target = Path(output).expanduser().absolute()
    check_output(target, [h.path for h in pair.headers], overwrite=overwrite)
    check_disk(target, sum(info.n_bytes for info in _kept(pair).values()))
    return target


def save_aligned(
    pair: Pair,
    matching: Matching,
    output: str | os.PathLike[str],
    *,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> AlignedFile:
    """Write B with its channels in A's order; the file is whole or not there.

    Every value keeps its bits, every tensor its type. The EMA copy is left out: its
    channels would be those of B.

    Args:
        pair: The models.
        matching: What the search found.
        output: A .safetensors file to be.
        seed: Of the search, for the metadata.
        overwrite: Whether an existing file may be replaced.
        progress: Advanced by bytes; asked once a tensor whether to stop.

    Raises:
        OutputError: The output cannot be written there.
        DiskFullError: Not enough room, found before the first byte.
        Cancelled: The user asked to stop; nothing is left behind.
    """
    progress = progress or NullProgress()
    target = check_aligned_output(pair, output, overwrite=overwrite)
    hashes = _hashes(pair, progress)
    layout = layout_of(list(_kept(pair).items()))
    metadata = _metadata(pair, matching, seed, hashes)
    n_header = len(layout.header_bytes(metadata))
    remove_leftovers(target)
    pending = PendingFile(target, n_header + layout.n_tensor_bytes)
    try:
        sink = FileSink(pending, layout, n_header, {})
        try:
            sink.write_header(metadata)
            _write(pair, matching.permutations, sink, progress)
            pending.sync()
            sha256 = sink.hash.result()
        finally:
            sink.hash.stop()
        if sha256 is None:
            raise ResourceError(
                f"{pending.path} could not be read back; check the disk and try again."
            )
        progress.check()
        pending.commit(layout)
    finally:
        pending.discard()
    remember_sha256(target, sha256)
    return AlignedFile(target, sha256)


def _write(
    pair: Pair, permutations: Permutations, sink: FileSink, progress: Progress
) -> None:
    keys = {name: key for key, name in pair.names.items()}
    progress.start(f"Aligning {pair.headers[B].path.name}", sink.layout.n_tensor_bytes)
    with PairReader(pair) as reader:
        for name in sink.layout.infos:
            progress.check()
            tensor = reader.read_other(name)
            if name in keys:
                tensor = pair.spec.apply(keys[name], tensor, permutations)
            sink.write(name, 0, tensor.contiguous().reshape(-1))
            progress.advance(tensor.nbytes)


def _kept(pair: Pair) -> dict[str, TensorInfo]:
    """B's tensors without its EMA copy."""
    found = {}
    for key, info in pair.headers[B].infos.items():
        role = pair.architecture.role_of(key)
        if role is None or role.treatment is not Treatment.DROP_UNLESS_ASKED:
            found[key] = info
    return found


def _hashes(pair: Pair, progress: Progress) -> tuple[str, str]:
    n_bytes = sum(header.n_bytes for header in pair.headers)
    progress.start("Checking both models", n_bytes)
    first, second = (
        file_sha256(header.path, progress=progress) for header in pair.headers
    )
    return first, second


def _metadata(
    pair: Pair, matching: Matching, seed: int, hashes: tuple[str, str]
) -> dict[str, str]:
    """Strings that say where the file comes from; WebUIs follow the hashes."""
    models = {
        name: {"name": pair.headers[model].path.name, "sha256": hashes[model]}
        for name, model in (("to", A), ("model", B))
    }
    how = {**models, "seed": seed, "n_sweeps": len(matching.scores) - 1}
    return {
        "format": "pt",
        VERSION: lib_merge.__version__,
        REBASIN: json.dumps(how),
        WEBUI_RECIPE: json.dumps({"type": "mergelab-rebasin", **how}),
        WEBUI_MODELS: json.dumps(_webui_models(pair, hashes)),
    }


def _webui_models(pair: Pair, hashes: tuple[str, str]) -> Mapping[str, Any]:
    return {
        hashes[model]: {
            "name": pair.headers[model].path.name,
            "legacy_hash": None,
            "sd_merge_recipe": None,
        }
        for model in (A, B)
    }
