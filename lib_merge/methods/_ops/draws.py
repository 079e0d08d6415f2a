"""Draws that depend on (seed, key, model, index) alone: one answer on every device.

A counter-based generator: the element's index is hashed to 32 bits once for all
models, then once more with the model's own number. All of it is integer arithmetic that
wraps, so that the CPU and the GPU, and any way to cut a tensor up, give the same bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lib_merge.core.runs import Place
from lib_merge.core.seeds import derive_seed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_HALF = 1 << 30


class Draws:
    """Uniform draws for a run of one tensor, one set for each model.

    The hash is "lowbias32" (Wellons, Prospecting for hash functions, 2018,
    https://nullprogram.com/blog/2018/07/31/) of the index, then its two multiplications
    again over the hash and the model's number.

    Args:
        place: Where the run lies; its key and start matter.
        n_elements: Length of the run.
        seed: The run's seed.
        device: Where the draws are made.
    """

    def __init__(
        self, place: Place, n_elements: int, *, seed: float, device: torch.device
    ) -> None:
        import torch

        self._key = place.key
        self._seed = int(seed)
        index = torch.arange(
            place.start, place.start + n_elements, dtype=torch.int32, device=device
        )
        index ^= _signed(derive_seed(self._seed, "drop", self._key))
        spare = torch.empty_like(index)
        _xor_shift(index, 16, spare)
        _mix(index, spare)
        self._hash = _xor_shift(index, 16, spare)
        self._spare = spare

    def keep(self, model: int, drop_rate: float | Tensor) -> Tensor:
        """Which values of a model are kept.

        Args:
            model: Its position in the pool.
            drop_rate: Probability to drop: one number, or one a value (float32 or
                float64). Rounded to a multiple of 2^-31; 0 keeps all, 1 drops all.

        Returns:
            1-D int32, all bits set where kept and none where dropped, for `masked`.
        """
        if not isinstance(drop_rate, (int, float)):
            return self.keep_at(model, drop_limits(drop_rate))
        limit = round(drop_rate * 2 * _HALF) - _HALF - 1
        return self._draw(model).neg_().add_(limit).bitwise_right_shift_(31)

    def keep_at(self, model: int, limits: Tensor) -> Tensor:
        """Which values of a model are kept, by drop rates that were prepared.

        Args:
            model: Its position in the pool.
            limits: One a value, from `drop_limits`; overwritten.

        Returns:
            As `keep`.
        """
        # Kept where draw > limit: the sign bit of (limit - draw), spread.
        return limits.sub_(self._draw(model)).bitwise_right_shift_(31)

    def uniform(self, model: int) -> Tensor:
        """The draws themselves.

        Returns:
            1-D float64 in [0, 1), multiples of 2^-31; a value is dropped where this is
            below its drop rate.
        """
        return (self._draw(model).double() + _HALF) / (2 * _HALF)

    def _draw(self, model: int) -> Tensor:
        """Signed draws in [-2^30, 2^30)."""
        number = derive_seed(self._seed, "drop", self._key, model)
        draws = self._hash ^ _signed(number)
        _mix(draws, self._spare)
        return draws.bitwise_right_shift_(1)


def drop_limits(drop_rates: Tensor) -> Tensor:
    """Drop rates as `Draws.keep_at` takes them.

    Args:
        drop_rates: Float32 or float64; rounded to multiples of 2^-31, and into [0, 1].

    Returns:
        Int32, of the same shape: a value is dropped where its draw is at most this.
    """
    import torch

    limits = (drop_rates.double() * (2 * _HALF)).round_().clamp_(0, 2 * _HALF)
    return (limits - (_HALF + 1)).to(torch.int32)


def _mix(values: Tensor, spare: Tensor) -> None:
    values *= 0x7FEB352D
    _xor_shift(values, 15, spare)
    values *= _signed(0x846CA68B)


def _xor_shift(values: Tensor, n_bits: int, spare: Tensor) -> Tensor:
    """values ^= values >> n_bits, shifting zeros in (torch shifts the sign bit)."""
    import torch

    torch.bitwise_right_shift(values, n_bits, out=spare)
    spare &= (1 << (32 - n_bits)) - 1
    values ^= spare
    return values


def _signed(number: int) -> int:
    """A 32-bit number as int32 has it."""
    return number - (1 << 32) if number >= 1 << 31 else number


def masked(values: Tensor, keep: Tensor) -> Tensor:
    """Zero what is not kept; much faster than torch.where on the CPU.

    Args:
        values: 1-D, float32 or float64.
        keep: As many int32, from `Draws.keep` or `at_least`.

    Returns:
        A new tensor; +0.0 where nothing is kept.
    """
    import torch

    if values.dtype is torch.float64:
        return (values.view(torch.int64) & keep.to(torch.int64)).view(torch.float64)
    return (values.view(torch.int32) & keep).view(torch.float32)


def at_least(values: Tensor, threshold: float) -> Tensor:
    """Which values have a magnitude of at least some threshold, compared as float32.

    Args:
        values: 1-D, float32 or float64, finite.
        threshold: A float32 number, not negative.

    Returns:
        1-D int32, all bits set where |value| >= threshold.
    """
    bits = magnitude_bits(values)
    return bits.neg_().add_(float_bits(threshold) - 1).bitwise_right_shift_(31)


def magnitude_bits(values: Tensor) -> Tensor:
    """Bit patterns of |value| as float32, which order as the magnitudes do.

    Returns:
        1-D int32, not negative, in memory of its own.
    """
    import torch

    return values.to(torch.float32).view(torch.int32) & 0x7FFFFFFF


def float_bits(value: float) -> int:
    """The bit pattern of a float32 number."""
    import struct

    return int(struct.unpack("<i", struct.pack("<f", value))[0])
