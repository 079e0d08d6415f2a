"""Writes a checkpoint whose tensors come from other files, converted on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.analysis._crew import default_threads, in_order
from lib_merge.analysis.health.job import FileValues, OutTensor, Rewrite
from lib_merge.analysis.health.source import Source
from lib_merge.analysis.health.values import Piece, pieces_of
from lib_merge.checkpoint.handles import Handles
from lib_merge.checkpoint.hashes import remember_sha256
from lib_merge.checkpoint.outputs import check_disk, check_output
from lib_merge.checkpoint.reader import CheckpointReader, torch_dtype
from lib_merge.checkpoint.scaled import EIGHT_BITS
from lib_merge.checkpoint.writer import PendingFile, layout_of
from lib_merge.core.dtypes import DType
from lib_merge.core.ports import Progress
from lib_merge.engine._sidecar import copy_config
from lib_merge.engine.progress import NullProgress
from lib_merge.engine.rounding import round_into
from lib_merge.engine.save import FileSink
from lib_merge.errors import NonFiniteError, ResourceError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Written:
    """A file that lies on the disk.

    Attributes:
        path: The file.
        sha256: Of the file.
        n_bytes: Its size.
        n_keys: Its tensors.
        warnings: Sentences that the user should see.
    """

    path: Path
    sha256: str
    n_bytes: int
    n_keys: int
    warnings: tuple[str, ...] = ()


def check_rewrite(job: Rewrite, output: Path, *, overwrite: bool = False) -> Path:
    """Refuse an output that cannot be written.

    Returns:
        Its absolute path.

    Raises:
        OutputError: It exists, is an input, or its folder is missing or closed.
        DiskFullError: There is not enough room.
    """
    target = output.expanduser().absolute()
    check_output(target, job.inputs, overwrite=overwrite)
    check_disk(target, job.n_bytes)
    return target


def write_file(
    job: Rewrite,
    output: Path,
    *,
    overwrite: bool = False,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> Written:
    """Write a file; it is whole or not there.

    Args:
        job: What to write.
        output: A .safetensors file to be.
        overwrite: Whether an existing output may be replaced.
        n_threads: Threads that work; None takes what the machine has.
        progress: Advanced by bytes written; asked once a piece whether to stop.

    Raises:
        OutputError, DiskFullError: As in `check_rewrite`.
        NonFiniteError: A value does not fit the type it is written in.
        Cancelled: The user asked to stop; nothing is left behind.
    """
    progress = progress or NullProgress()
    target = check_rewrite(job, output, overwrite=overwrite)
    layout = layout_of(job.infos())
    n_header = len(layout.header_bytes(job.metadata))
    n_bytes = n_header + layout.n_tensor_bytes
    pending = PendingFile(target, n_bytes)
    try:
        sink = FileSink(pending, layout, n_header, {})
        try:
            sink.write_header(job.metadata)
            progress.start(f"Writing {target.name}", job.n_bytes)
            _write_tensors(job, sink, n_threads or default_threads(), progress)
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
    warning = copy_config(job.inputs[0], target) if job.inputs else None
    return Written(
        path=target,
        sha256=sha256,
        n_bytes=n_bytes,
        n_keys=len(layout.infos),
        warnings=(warning,) if warning else (),
    )


def _write_tensors(
    job: Rewrite, sink: FileSink, n_threads: int, progress: Progress
) -> None:
    with ExitStack() as stack:
        handles = Handles()
        sources: dict[Path, Source] = {}
        for tensor in job.tensors:
            values = tensor.values
            if isinstance(values, FileValues) and values.header.path not in sources:
                reader = CheckpointReader(values.header, handles)
                sources[values.header.path] = Source(stack.enter_context(reader))

        def work(tensor: OutTensor) -> None:
            _write_one(tensor, sources, sink, progress)

        order = {key: i for i, key in enumerate(sink.layout.infos)}
        tensors = sorted(job.tensors, key=lambda tensor: order[tensor.key])
        for _ in in_order(work, tensors, n_threads):
            pass


def _write_one(
    tensor: OutTensor,
    sources: Mapping[Path, Source],
    sink: FileSink,
    progress: Progress,
) -> None:
    import torch

    scale = None
    if tensor.scale_key is not None:
        scale = _fitting_scale(tensor, sources, progress)
        sink.write(tensor.scale_key, 0, torch.tensor([scale], dtype=torch.float32))
        progress.advance(4)
    for piece, values in _pieces(tensor, sources, progress):
        if scale is not None:
            values = values.to(torch.float32) / scale
        sink.write(tensor.key, piece.start, _converted(tensor, values, scale))
        progress.advance((piece.stop - piece.start) * tensor.info.dtype.size)


def _pieces(
    tensor: OutTensor, sources: Mapping[Path, Source], progress: Progress
) -> Iterator[tuple[Piece, Tensor]]:
    import torch

    for piece in pieces_of(tensor.info):
        progress.check()
        values = tensor.values
        if isinstance(values, FileValues):
            yield piece, sources[values.header.path].read(values, piece)
            continue
        dtype = torch_dtype(tensor.info.dtype)
        n_elements = piece.stop - piece.start
        if values.is_counted:
            yield piece, torch.arange(piece.start, piece.stop).to(dtype)
        else:
            yield piece, torch.zeros(n_elements, dtype=torch.float32).to(dtype)


def largest_eight_bits(dtype: DType) -> float:
    """The largest number of an eight-bit float type."""
    import torch

    return float(torch.finfo(torch_dtype(dtype)).max)


def _fitting_scale(
    tensor: OutTensor, sources: Mapping[Path, Source], progress: Progress
) -> float:
    """What a tensor is divided by so that its largest value is the type's largest.

    It is a float32, as it is stored, so that reading multiplies by the same number.
    """
    import torch

    largest = 0.0
    for _, values in _pieces(tensor, sources, progress):
        wide = values.to(torch.float32)
        if not bool(torch.isfinite(wide).all()):
            raise NonFiniteError(
                f"The tensor '{tensor.key}' holds NaN or infinity, which no scale "
                "makes fit; repair the file first."
            )
        largest = max(largest, float(wide.abs().max()))
    top = largest_eight_bits(tensor.info.dtype)
    scale = float(torch.tensor(largest / top, dtype=torch.float32))
    return scale if scale > 0 else 1.0


def _converted(tensor: OutTensor, values: Tensor, scale: float | None) -> Tensor:
    """Values in the tensor's type, rounded once."""
    import torch

    dtype = torch_dtype(tensor.info.dtype)
    source = tensor.values
    if isinstance(source, FileValues) and source.must_be_finite:
        _check_finite(tensor, values, source)
    if values.dtype == dtype:
        return values.contiguous()
    if not tensor.info.dtype.is_float:
        return values.to(dtype)
    if values.element_size() == 1:
        values = values.to(torch.float32)
    if scale is not None:
        top = largest_eight_bits(tensor.info.dtype)
        values = values.clamp(-top, top)
    found = torch.empty(values.numel(), dtype=dtype)
    round_into(found, values)
    if found.element_size() < values.element_size():
        _check_fits(tensor, values, found)
    return found


def _check_fits(tensor: OutTensor, values: Tensor, found: Tensor) -> None:
    """Refuse finite values that became infinite, or NaN in a type without infinity."""
    import torch

    seen = found.to(torch.float32) if found.element_size() == 1 else found
    ends = torch.stack(torch.aminmax(seen)).to(torch.float32)
    if bool(torch.isfinite(ends).all()):
        return
    n_lost = int((torch.isfinite(values) & ~torch.isfinite(seen)).sum())
    if not n_lost:
        return
    name = tensor.info.dtype.torch_name
    is_eight = tensor.info.dtype in EIGHT_BITS
    advice = "let it be scaled" if is_eight else "use bfloat16 or float32"
    raise NonFiniteError(
        f"The tensor '{tensor.key}' holds {n_lost} values too large for {name}; "
        f"{advice}."
    )


def _check_finite(tensor: OutTensor, values: Tensor, source: FileValues) -> None:
    import torch

    if not values.dtype.is_floating_point:
        return
    wide = values.to(torch.float32) if values.element_size() == 1 else values
    if not bool(torch.isfinite(wide).all()):
        raise NonFiniteError(
            f"{source.header.path}, tensor '{source.spans[0].key}': it should replace "
            "a damaged one and holds NaN or infinity itself; give another base."
        )
