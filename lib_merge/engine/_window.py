"""The stored values of models around the place where work on a tensor goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lib_merge.core.plan import KeyTask
from lib_merge.engine.sources import Scratch, Sources

if TYPE_CHECKING:
    from torch import Tensor

_ROUNDED = 1 << 16


class Buffers:
    """Memory that is read into again and again; one a model, and one for results."""

    def __init__(self) -> None:
        self._held: dict[int | str, Scratch] = {}

    def get(self, name: int | str, n_bytes: int) -> Scratch:
        """A buffer of at least so many bytes; its content is anything."""
        buffer = self._held.get(name)
        if buffer is None or buffer.n_bytes < n_bytes:
            # The old one goes first: both at once would double the peak.
            self._held.pop(name, None)
            buffer = Scratch(-(-n_bytes // _ROUNDED) * _ROUNDED)
            self._held[name] = buffer
        return buffer


class RawWindow:
    """Stored values of one key's models, around the place where work goes on.

    Args:
        sources: The open models.
        task: Whose key it is.
        n_window: So many values of a model are read at once.
        limit: Index behind the last value that will be asked for.
        buffers: Where they are read to.
    """

    def __init__(
        self,
        sources: Sources,
        task: KeyTask,
        *,
        n_window: int,
        limit: int,
        buffers: Buffers,
    ) -> None:
        self._sources = sources
        self._key = task.key
        self._n_window = n_window
        self._limit = limit
        self._buffers = buffers
        self._held: dict[int, tuple[int, int, Tensor]] = {}

    def values(self, model: int, start: int, stop: int) -> Tensor:
        """Values [start, stop) as stored, 1-D; not to be written to."""
        held = self._held.get(model)
        if held is None or start < held[0] or stop > held[1]:
            held = self._load(model, start, stop)
            self._held[model] = held
        first, last, values = held
        if start == first and stop == last:
            return values
        return values[start - first : stop - first]

    def _load(self, model: int, start: int, stop: int) -> tuple[int, int, Tensor]:
        end = max(stop, min(self._limit, start + self._n_window))
        size = self._sources.element_bytes(model, self._key)
        scratch = self._buffers.get(model, (end - start) * size)
        values = self._sources.fetch(
            model, self._key, start=start, stop=end, scratch=scratch
        )
        return start, end, values
