"""Pictures are encoded and stored in a thread of their own, while others are rendered.

Waiting for the disk costs milliseconds a picture; beside rendering it costs nothing.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from lib_merge.autombw._files import named_disk_faults, write_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")


class PictureStore:
    """Stores a trial's pictures; a context that ends when all are on the disk.

    Raises:
        DiskFullError: At the end, or from what `put` returned: no room for a picture.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="autombw-pictures")
        self._syncs: list[Future[None]] = []

    def __enter__(self) -> PictureStore:
        return self

    def put(self, path: Path, picture: Image, look: Callable[[Image], T]) -> Future[T]:
        """Begin to store a picture as PNG; done when the file can be read.

        Args:
            path: Where; the folder must exist.
            picture: It must not be changed any more.
            look: Asked first; what it raises keeps the picture from being stored.

        Returns:
            What `look` gives.
        """
        written = self._pool.submit(_write, path, picture, look)
        self._syncs.append(self._pool.submit(_sync, path, written))
        return written

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True)
        faults = [f for sync in self._syncs if (f := sync.exception()) is not None]
        self._syncs.clear()
        if faults and fault is None:
            raise faults[0]


def _write(path: Path, picture: Image, look: Callable[[Image], T]) -> T:
    found = look(picture)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue(), is_durable=False)
    return found


def _sync(path: Path, written: Future[Any]) -> None:
    """Wait until a stored picture is on the disk; one that is not there is no news."""
    if written.exception() is not None:
        written.result()
    with named_disk_faults(path.parent), suppress(FileNotFoundError):
        handle = os.open(path, os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
