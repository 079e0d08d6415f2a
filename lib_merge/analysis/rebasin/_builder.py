"""Collects the slices and groups of a spec while an architecture is walked through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lib_merge.analysis.rebasin.spec import Permutation, PermutationSpec, Slice
from lib_merge.analysis.rebasin.structure import Partition, Structure, grouped, heads
from lib_merge.core.blocks import Component, KeyInfos
from lib_merge.errors import CheckpointError

N_GROUPS = 32
"""Groups of every group normalisation in Stable Diffusion's UNets (CompVis's code)."""


@dataclass
class Stream:
    """A channel axis in the making: everything that carries the same channels.

    Attributes:
        name: Of its permutation.
        component: What it belongs to.
        parts: Sizes of its parts.
        structure: What is allowed, or None to find that from the normalisations.
        slices: What follows it.
        partitions: Groups of the normalisations that it goes through.
    """

    name: str
    component: Component
    parts: tuple[int, ...]
    structure: Structure | None = None
    slices: list[Slice] = field(default_factory=list)
    partitions: list[Partition] = field(default_factory=list)

    @property
    def width(self) -> int:
        """Number of positions."""
        return sum(self.parts)


class SpecBuilder:
    """A spec in the making.

    Args:
        infos: Every key of the checkpoint, as its header declares them.
        where: The file, for messages.
    """

    def __init__(self, infos: KeyInfos, where: str) -> None:
        self._infos = infos
        self._where = where
        self._streams: dict[str, Stream] = {}
        self._seen: set[str] = set()
        self.warnings: list[str] = []

    def has(self, key: str) -> bool:
        """Whether the checkpoint has a tensor of this name."""
        return key in self._infos

    def shape(self, key: str) -> tuple[int, ...]:
        """A tensor's shape.

        Raises:
            CheckpointError: It is not there.
        """
        info = self._infos.get(key)
        if info is None:
            raise CheckpointError(
                f"{self._where} has no tensor '{key}', without which its channels "
                "cannot be followed; choose a whole checkpoint."
            )
        return info.shape

    def stream(self, name: str, component: Component, width: int) -> Stream:
        """A new axis; group normalisations that it meets bind it."""
        return self._add(Stream(name, component, (width,)))

    def heads(self, name: str, component: Component, n_heads: int, size: int) -> Stream:
        """A new axis of attention heads: two parts, of query and key and of value."""
        parts = (n_heads * size,) * 2
        return self._add(Stream(name, component, parts, heads(n_heads, size)))

    def _add(self, stream: Stream) -> Stream:
        assert stream.name not in self._streams, stream.name
        self._streams[stream.name] = stream
        return stream

    def follow(
        self,
        stream: Stream,
        key: str,
        axis: int,
        *,
        start: int = 0,
        offset: int = 0,
        length: int | None = None,
    ) -> None:
        """Say that a run of a tensor's axis carries a stream's channels.

        Args:
            stream: The stream.
            key: The tensor.
            axis: 0 or 1.
            start: First entry of the axis.
            offset: First position of the stream.
            length: None means the part of the stream that begins at `offset`.

        Raises:
            CheckpointError: The tensor is missing or too small for it.
        """
        shape = self.shape(key)
        length = stream.parts[0] if length is None else length
        if axis >= len(shape) or start + length > shape[axis]:
            raise CheckpointError(
                f"{self._where}, tensor '{key}': its shape {list(shape)} has no room "
                f"for channels {start} to {start + length} of axis {axis}; this is no "
                "Stable Diffusion checkpoint of the usual form."
            )
        stream.slices.append(Slice(key, axis, start, offset, length))
        self._seen.add(key)

    def out_of(self, stream: Stream, layer: str) -> None:
        """A layer whose output is the stream: weight's axis 0, and bias if any."""
        self.follow(stream, f"{layer}.weight", 0)
        if self.has(f"{layer}.bias"):
            self.follow(stream, f"{layer}.bias", 0)

    def into(self, streams: Sequence[Stream], layer: str) -> None:
        """A layer whose input is some streams side by side: weight's axis 1."""
        start = 0
        for stream in streams:
            self.follow(stream, f"{layer}.weight", 1, start=start)
            start += stream.width
        if start != self.shape(f"{layer}.weight")[1]:
            self._refuse_width(f"{layer}.weight", start)
        self.know(f"{layer}.bias")

    def layer_norm(self, stream: Stream, layer: str) -> None:
        """A normalisation over all channels, which binds nothing."""
        self.follow(stream, f"{layer}.weight", 0)
        self.follow(stream, f"{layer}.bias", 0)

    def group_norm(self, streams: Sequence[Stream], layer: str) -> None:
        """A normalisation over groups of the channels of streams side by side.

        Raises:
            CheckpointError: The channels are no whole number of groups.
        """
        total = sum(stream.width for stream in streams)
        if total != self.shape(f"{layer}.weight")[0] or total % N_GROUPS:
            self._refuse_width(f"{layer}.weight", total)
        size, start = total // N_GROUPS, 0
        for stream in streams:
            for name in ("weight", "bias"):
                self.follow(stream, f"{layer}.{name}", 0, start=start)
            stream.partitions.append(_partition(size, start, stream.width))
            start += stream.width

    def _refuse_width(self, key: str, width: int) -> None:
        raise CheckpointError(
            f"{self._where}, tensor '{key}': its shape {list(self.shape(key))} does "
            f"not go with {width} channels in {N_GROUPS} groups; this is no Stable "
            "Diffusion checkpoint of the usual form."
        )

    def know(self, *keys: str) -> None:
        """Say of tensors that no permutation touches that they are understood."""
        self._seen.update(keys)

    def build(self, owned: Mapping[str, Component]) -> PermutationSpec:
        """The spec.

        Args:
            owned: Every key that must be understood, with its component.

        Raises:
            CheckpointError: Some are not: whatever they do, it would break.
        """
        strange = [key for key in owned if key not in self._seen]
        if strange:
            raise CheckpointError(
                f"{self._where} has {len(strange)} tensors whose place in the model is "
                f"not known ({', '.join(strange[:3])}), so its channels cannot be "
                "permuted safely; choose a checkpoint without additions."
            )
        permutations = {s.name: _permutation(s) for s in self._streams.values()}
        touched = {s.key for p in permutations.values() for s in p.slices}
        shapes = {key: self._infos[key].shape for key in self._infos if key in touched}
        return PermutationSpec(permutations, shapes, tuple(self.warnings))


def _permutation(stream: Stream) -> Permutation:
    structure = stream.structure or grouped(stream.width, stream.partitions)
    return Permutation(
        name=stream.name,
        component=stream.component,
        parts=stream.parts,
        structure=structure,
        slices=tuple(stream.slices),
    )


def _partition(size: int, start: int, width: int) -> Partition:
    """A normalisation's groups as a stream at `start` of its channels sees them."""
    stop = start + width
    firsts = [cut for cut in range(0, stop, size) if cut > start]
    cuts = [0, *(cut - start for cut in firsts), width]
    pinned = set()
    if start % size:
        pinned.add(0)
    if stop % size:
        pinned.add(cuts[-2])
    return Partition(tuple(cuts), frozenset(pinned))
