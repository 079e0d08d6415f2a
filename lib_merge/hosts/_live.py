"""Writing flat runs of a file's values into the parameters of a loaded model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lib_merge.errors import HostError
from lib_merge.hosts._clip_names import Part, canonical_key

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_WRAPPERS = frozenset({"wrapped", "_orig_mod"})
"""Path components that a host's hijack or torch.compile puts between the names."""


@dataclass(frozen=True)
class Slot:
    """A share of a file tensor and the memory that holds it.

    Attributes:
        offset: Index of its first value in the flattened file tensor.
        view: The parameter, in the file tensor's orientation; any strides.
        via: A type that the host's loader rounds through before the parameter's own
            (Forge widens the embeddings after loading them in half precision).
    """

    offset: int
    view: Tensor
    via: torch.dtype | None = None


FindSlots = Callable[[str], tuple[Slot, ...]]
"""The slots of a canonical file key; empty when the model has none."""


def clean_name(name: str) -> str:
    """A parameter's name without the wrappers that hosts put into it."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def named_tensors(module: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by clean name; one name may come with several tensors."""
    for name, tensor in module.named_parameters(remove_duplicate=False):
        yield prefix + clean_name(name), tensor
    for name, tensor in module.named_buffers(remove_duplicate=False):
        yield prefix + clean_name(name), tensor


def collect(named: Iterable[tuple[str, Tensor]]) -> dict[str, list[Tensor]]:
    """Tensors by name, each tensor once."""
    found: dict[str, list[Tensor]] = {}
    for name, tensor in named:
        known = found.setdefault(name, [])
        if not any(tensor is other for other in known):
            known.append(tensor)
    return found


def part_slot(part: Part, tensor: Tensor, via: torch.dtype | None = None) -> Slot:
    """The slot of one part of a file tensor (see `_clip_names`)."""
    view = tensor.t() if part.is_transposed else tensor
    return Slot(offset=part.index * tensor.numel(), view=view, via=via)


def quantised_name(named: Mapping[str, Sequence[Tensor]]) -> str | None:
    """The first tensor whose numbers are no plain floats, with its storage, or None.

    bitsandbytes and GGUF mark their parameters; fp8 and integer storage show in the
    type. Writing into such memory would store rounded or meaningless numbers.
    """
    import torch

    plain = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    for name, tensors in named.items():
        for tensor in tensors:
            if hasattr(tensor, "bnb_quantized"):
                return f"{name} (bitsandbytes)"
            if getattr(tensor, "gguf_cls", None) is not None:
                return f"{name} (GGUF)"
            if getattr(tensor, "_layout_cls", None) is not None:
                return f"{name} (quantised layout)"
            is_weight = isinstance(tensor, torch.nn.Parameter)
            if is_weight and tensor.dtype not in plain:
                return f"{name} ({str(tensor.dtype).removeprefix('torch.')})"
    return None


class LiveWeights:
    """A `LiveModel` over slots; safe to write from several threads.

    Args:
        find: Looks a key's slots up; asked once a key.
        is_needed: Whether a file key without a slot would change the picture.
        reason: Why weights cannot be written in place, or None.
    """

    def __init__(
        self,
        find: FindSlots,
        is_needed: Callable[[str], bool],
        reason: str | None = None,
    ) -> None:
        self._find = find
        self._slots: dict[str, tuple[Slot, ...]] = {}
        self._is_needed = is_needed
        self._reason = reason
        self._strided = threading.Lock()
        self.was_written = False

    def refusal(self) -> str | None:
        """Why weights cannot be written in place, or None."""
        return self._reason

    def missing(self, keys: Sequence[str]) -> tuple[str, ...]:
        """Keys that would change the picture and have no place in the model."""
        return tuple(
            key for key in keys if not self._slots_of(key) and self._is_needed(key)
        )

    def write(self, key: str, start: int, values: Tensor) -> None:
        """Copy a flat run into the parameters of a file key.

        Raises:
            HostError: The model has no place for the key, or a smaller one.
        """
        import torch

        slots = self._slots_of(key)
        if not slots:
            if self._is_needed(key):
                raise HostError(
                    f"The loaded model has no tensor for '{key}'; it is of another "
                    "kind than the file. Load the recipe's first model again."
                )
            return
        stop = start + values.numel()
        room = max(slot.offset + slot.view.numel() for slot in slots)
        if stop > room:
            raise HostError(
                f"'{key}' has at least {stop} numbers in the file but {room} in the "
                "loaded model; load the recipe's first model again."
            )
        self.was_written = True
        # The mode is per thread, and workers write too: Forge's parameters may be
        # changed inside it only.
        with torch.inference_mode():
            for slot in slots:
                self._write_slot(slot, start, values)

    def _slots_of(self, key: str) -> tuple[Slot, ...]:
        known = self._slots.get(key)
        if known is None:
            known = self._slots[key] = self._find(canonical_key(key))
        return known

    def _write_slot(self, slot: Slot, start: int, values: Tensor) -> None:
        begin = max(start, slot.offset)
        end = min(start + values.numel(), slot.offset + slot.view.numel())
        if begin >= end:
            return
        run = values[begin - start : end - start]
        if slot.via is not None:
            run = run.to(slot.via)
        view = slot.view
        if view.is_contiguous():
            flat = view.view(-1)
            flat[begin - slot.offset : end - slot.offset].copy_(run)
            return
        # Transposed or channels-last memory: other runs of the same tensor may be in
        # flight, and this one goes through a copy of the whole.
        with self._strided:
            flat = view.reshape(-1).clone()
            flat[begin - slot.offset : end - slot.offset].copy_(run)
            view.copy_(flat.view(view.shape))
