"""Where a running merge gets its tensors: files, or memory once they were read."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from lib_merge.checkpoint.handles import Handles
from lib_merge.checkpoint.header import FileState, file_state, read_header
from lib_merge.checkpoint.reader import CheckpointReader, read_stored, torch_dtype
from lib_merge.core.layouts import Stored, cut_runs
from lib_merge.core.recipe import Recipe
from lib_merge.engine.layouts import Finder, layout_of, output_layout
from lib_merge.errors import CheckpointError
from lib_merge.lora.fitted import FittedChange, LoraStore

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FileId = tuple[str, FileState]
Span = tuple[int, int]


class Scratch:
    """Bytes that are read into again and again, as a tensor and as plain memory.

    Args:
        n_bytes: Its size.
    """

    def __init__(self, n_bytes: int) -> None:
        import torch

        self.n_bytes = n_bytes
        self.tensor = torch.empty(n_bytes, dtype=torch.uint8)
        self.memory: memoryview = self.tensor.numpy().data


class Sources:
    """The open models of a recipe; a context manager, safe from any thread.

    Args:
        cache_bytes: So many bytes of tensors are kept in memory, as stored, for merges
            of the same models that follow; 0 keeps none.
    """

    def __init__(self, cache_bytes: int = 0) -> None:
        self.cache_bytes = cache_bytes
        self._lock = threading.Lock()
        self._handles = Handles()
        self._readers: dict[FileId, CheckpointReader] = {}
        self._loras = LoraStore(self._handles)
        self._cache: dict[tuple[FileId, Stored], Tensor] = {}
        self._n_cached = 0
        self._ids: dict[int, FileId] = {}
        self._finder: Finder | None = None
        self.n_read = 0

    def open(self, recipe: Recipe) -> Mapping[int, FileId]:
        """Open the models of a recipe and close those that it does not use.

        Args:
            recipe: With absolute paths.

        Returns:
            What identifies each file's content, models' and LoRAs', by node index.

        Raises:
            CheckpointError: A file is gone, or changed since it was planned with.
        """
        ids = {i: (f.path, file_state(Path(f.path))) for i, f in recipe.files()}
        models = dict.fromkeys(ids[index] for index, _ in recipe.models())
        for stale in set(self._readers) - set(models):
            self._forget(stale)
        for file_id in models:
            if file_id not in self._readers:
                self._readers[file_id] = CheckpointReader(
                    read_header(file_id[0]), self._handles
                )
        self._loras.keep_only({state for _, state in set(ids.values()) - set(models)})
        self._ids = ids
        headers = {i: self._readers[ids[i]].header for i, _ in recipe.models()}
        self._finder = Finder(
            output_layout(recipe, headers[recipe.first_model()]),
            {index: layout_of(header) for index, header in headers.items()},
        )
        return ids

    def _forget(self, file_id: FileId) -> None:
        self._readers.pop(file_id).close()
        for entry in [entry for entry in self._cache if entry[0] == file_id]:
            self._n_cached -= self._cache.pop(entry).nbytes

    def locate(self, model: int, key: str) -> tuple[FileId, Stored]:
        """The model's file, and where it holds a tensor of the output.

        Raises:
            CheckpointError: The file lacks the key (it changed since planning).
        """
        file_id = self._ids[model]
        stored = self._finder.find(model, key) if self._finder else None
        if stored is None:
            raise CheckpointError(
                f"{file_id[0]} has no tensor '{key}' any more; plan the merge again."
            )
        return file_id, stored

    def element_bytes(self, model: int, key: str) -> int:
        """Bytes of one value as `fetch` gives it."""
        return self.locate(model, key)[1].info.dtype.size

    def path(self, model: int) -> str:
        """The model's file, for messages."""
        return self._ids[model][0]

    def lora_change(
        self,
        lora: int,
        arch_id: str,
        *,
        key: str,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device: str,
    ) -> FittedChange:
        """What a LoRA adds to a tensor.

        Args:
            lora: The LoRA's node index.
            arch_id: The architecture that its names are read for.
            key: As the output spells it.
            shape: Of the tensor.
            dtype: What is computed in.
            device: Where.
        """
        path, state = self._ids[lora]
        return self._loras.change(
            path, state, arch_id, key=key, shape=shape, dtype=dtype, device=device
        )

    def hint(
        self, models: Iterable[int], key: str, span: Span, *, wanted: bool
    ) -> None:
        """Tell the system that values of some models are wanted soon, or not again.

        Args:
            models: Node indices.
            key: As the output spells it.
            span: First value and the one behind the last.
            wanted: Read ahead if so; else need not be kept in the page cache.
        """
        for model in models:
            file_id, stored = self.locate(model, key)
            if (file_id, stored) in self._cache or not stored.is_direct:
                continue
            reader = self._readers[file_id]
            advise = reader.will_read if wanted else reader.was_read
            for run in cut_runs(stored, *span):
                advise(run.key, run.start, run.stop)

    def fetch(
        self, model: int, key: str, *, start: int, stop: int, scratch: Scratch
    ) -> Tensor:
        """Values [start, stop) of a tensor.

        Args:
            model: The model's node index.
            key: As the output spells it.
            start: Index of the first value.
            stop: Index behind the last.
            scratch: Large enough; may hold the result.

        Returns:
            1-D, in the stored dtype; not to be written to, valid until `scratch` is
            used again.
        """
        entry = self.locate(model, key)
        cached = self._cache.get(entry)
        if cached is None and self.cache_bytes:
            cached = self._keep(entry)
        if cached is not None:
            return cached[start:stop]
        file_id, stored = entry
        values = self._read(self._readers[file_id], stored, (start, stop), scratch)
        with self._lock:
            self.n_read += values.nbytes
        return values

    def _read(
        self, reader: CheckpointReader, stored: Stored, span: Span, scratch: Scratch
    ) -> Tensor:
        infos = reader.header.infos
        runs = cut_runs(stored, *span) if stored.is_direct else ()
        if not runs or any(infos[r.key].dtype is not stored.info.dtype for r in runs):
            return read_stored(reader, stored, *span)
        size = stored.info.dtype.size
        filled = 0
        for run in runs:
            end = filled + (run.stop - run.start) * size
            reader.read_into(run.key, run.start, run.stop, scratch.memory[filled:end])
            filled = end
        return scratch.tensor[:filled].view(torch_dtype(stored.info.dtype))

    def _keep(self, entry: tuple[FileId, Stored]) -> Tensor | None:
        """Read a whole tensor into the cache, if it still fits."""
        file_id, stored = entry
        reader = self._readers[file_id]
        with self._lock:
            if entry in self._cache:
                return self._cache[entry]
            if self._n_cached + stored.info.n_bytes > self.cache_bytes:
                return None
            # Read under the lock: two threads must not read the same tensor twice.
            tensor = read_stored(reader, stored)
            self._cache[entry] = tensor
            self._n_cached += tensor.nbytes
            self.n_read += tensor.nbytes
        return tensor

    def close(self) -> None:
        """Close every file and free the cache."""
        for file_id in list(self._readers):
            self._forget(file_id)
        self._loras.close()

    def __enter__(self) -> Sources:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
