"""Filters over the spatial frequencies of whole tensors, slab by slab.

Only the spectrum is held besides the input and the result: transforms along the later
axes go entry by entry of the first, and the transform along the first axis, the filter
and the way back go by slabs of columns, so that no grid of frequencies is ever built.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_BLOCK = 1 << 19
_EDGE = 1e-9
"""A frequency this near a cut lies on it."""


def workspace(shape: tuple[int, ...], n_bytes: int) -> float:
    """Bytes that `filtered` takes besides its input and its result, at most."""
    spectrum = math.prod(shape) * n_bytes
    # A slab of columns is there as it was, transformed, as radii and as factors.
    return spectrum + min(2 * spectrum, 6 * _BLOCK * 2 * n_bytes)


def filtered(values: Tensor, share: Callable[[Tensor], Tensor]) -> Tensor:
    """Multiply a tensor's frequencies by a factor that depends on their radius.

    The frequency of an axis of n values runs from 0 to 1 (n // 2 periods); the radius
    is the root of the mean of their squares over all axes longer than 1, so that 0 is
    the tensor's mean and 1 the highest frequency along every axis.

    Args:
        values: Any shape, float32 or float64.
        share: From radii (float64) to factors (float64, same shape).

    Returns:
        A new tensor of that shape and dtype.
    """
    import torch

    short = values.squeeze()
    if short.dim() == 0 or not values.numel():
        return values * share(torch.zeros((), dtype=torch.float64)).item()
    if short.dim() == 1:
        short = short.unsqueeze(0)
    spectrum = _forward(short)
    _multiply(spectrum, _Radii(short), share)
    return _backward(spectrum, short).reshape(values.shape)


class _Radii:
    """Radii of the half spectrum of a tensor, by columns of its first axis."""

    def __init__(self, values: Tensor) -> None:
        import torch

        sizes = values.shape
        self._n_axes = sum(size > 1 for size in sizes)
        first, *others, last = (_frequencies(n, values.device) for n in sizes)
        columns = torch.zeros(1, dtype=torch.float64, device=values.device)
        for frequencies in (*others, last[: sizes[-1] // 2 + 1]):
            columns = (columns[:, None] + frequencies.square_()).reshape(-1)
        self._first = first.square_()[:, None]
        self._columns = columns

    def __call__(self, start: int, stop: int) -> Tensor:
        """Of columns [start, stop): (entries of the first axis, columns)."""
        total = self._first + self._columns[start:stop]
        return total.div_(self._n_axes).sqrt_()


def _frequencies(size: int, device: torch.device) -> Tensor:
    """|k| / (n // 2) in the order of a discrete Fourier transform."""
    import torch

    index = torch.arange(size, dtype=torch.float64, device=device)
    return torch.minimum(index, size - index).div_(max(1, size // 2))


def _forward(values: Tensor) -> Tensor:
    """Transforms along all axes but the first; columns in one axis."""
    import torch

    n_columns = math.prod(values.shape[1:-1]) * (values.shape[-1] // 2 + 1)
    axes = tuple(range(1, values.dim()))
    step = max(1, _BLOCK // n_columns)
    if len(values) <= step:
        spectrum: Tensor = torch.fft.rfftn(values, dim=axes)
        return spectrum.reshape(len(values), n_columns)
    spectrum = torch.empty(
        (len(values), n_columns),
        dtype=torch.complex64 if values.dtype is torch.float32 else torch.complex128,
        device=values.device,
    )
    for start in range(0, len(values), step):
        rows = torch.fft.rfftn(values[start : start + step], dim=axes)
        spectrum[start : start + step] = rows.reshape(len(rows), n_columns)
    return spectrum


def _multiply(
    spectrum: Tensor, radii: _Radii, share: Callable[[Tensor], Tensor]
) -> None:
    """Finish the transform along the first axis, filter, and undo that axis."""
    import torch

    n_entries, n_columns = spectrum.shape
    step = max(1, _BLOCK // n_entries)
    for start in range(0, n_columns, step):
        stop = min(start + step, n_columns)
        columns = spectrum[:, start:stop]
        if n_entries > 1:
            columns = torch.fft.fft(columns, dim=0)
        pairs = torch.view_as_real(columns)
        pairs *= share(radii(start, stop)).to(pairs.dtype)[..., None]
        if n_entries > 1:
            spectrum[:, start:stop] = torch.fft.ifft(columns, dim=0)


def _backward(spectrum: Tensor, like: Tensor) -> Tensor:
    """Transforms back along all axes but the first."""
    import torch

    half = (*like.shape[1:-1], like.shape[-1] // 2 + 1)
    axes = tuple(range(1, like.dim()))
    step = max(1, _BLOCK // spectrum.shape[1])

    def rows(start: int, stop: int) -> Tensor:
        part = spectrum[start:stop].reshape(-1, *half)
        back: Tensor = torch.fft.irfftn(part, s=like.shape[1:], dim=axes)
        return back

    if len(spectrum) <= step:
        return rows(0, len(spectrum))
    values = torch.empty_like(like, memory_format=torch.contiguous_format)
    for start in range(0, len(spectrum), step):
        values[start : start + step] = rows(start, start + step)
    return values


def crossover_share(alpha: float, tilt: float) -> Callable[[Tensor], Tensor]:
    """Share of the second model at a radius, between two models' frequencies.

    The cut is a line in the plane of radius and share through (1 - alpha, alpha) where
    it rises and through (alpha, alpha) where it falls, held within 0 and 1.

    Args:
        alpha: From 0 (nowhere) to 1 (everywhere).
        tilt: At 0 the line is upright and rises, at 1 it is level, at 2 it is upright
            and falls.
    """
    is_rising = tilt <= 1.0
    edge = 1.0 - alpha if is_rising else alpha

    def step(radius: Tensor) -> Tensor:
        is_second = radius > edge + _EDGE if is_rising else radius < edge - _EDGE
        return is_second.to(radius.dtype)

    def line(radius: Tensor) -> Tensor:
        return radius.sub(edge).mul_(slope).add_(alpha).clamp_(0.0, 1.0)

    if tilt in (0.0, 2.0):
        return step
    slope = 1.0 / math.tan(math.pi * tilt / 2.0)
    return line
