"""Hashes the models of a merge while it runs, or before it to check them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType

from lib_merge.checkpoint.hashes import file_sha256, known_sha256
from lib_merge.checkpoint.header import file_state
from lib_merge.core.ports import Progress
from lib_merge.core.recipe import Recipe
from lib_merge.errors import Cancelled, RecipeError


class _Stoppable:
    """Passes the user's wish to stop on, and adds our own."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.is_stopped = threading.Event()

    def start(self, label: str, total: int, unit: str = "B") -> None:
        """Ignored: hashing beside a merge has no phase of its own."""

    def advance(self, amount: int) -> None:
        """Ignored, for the same reason."""

    def check(self) -> None:
        """Stop when the user or the merge wants it.

        Raises:
            Cancelled: One of them does.
        """
        if self.is_stopped.is_set():
            raise Cancelled("The merge ended before its models were hashed.")
        self._progress.check()


class InputHashes:
    """The SHA-256 of every file of a recipe; a context manager.

    Args:
        recipe: With absolute paths.
        n_threads: Files hashed at once.
        progress: Asked once a block whether to stop.
    """

    def __init__(self, recipe: Recipe, *, n_threads: int, progress: Progress) -> None:
        self._recipe = recipe
        self._progress = progress
        self._stop = _Stoppable(progress)
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix="merge-inputs")
        self._futures: dict[str, Future[str]] = {}

    def __enter__(self) -> InputHashes:
        for _, model in self._recipe.files():
            if model.path not in self._futures:
                self._futures[model.path] = self._pool.submit(
                    file_sha256, model.path, progress=self._stop
                )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.is_stopped.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def verify(self) -> None:
        """Wait for models whose hash the recipe names, and compare.

        Raises:
            RecipeError: Every model whose content is another.
        """
        named = {m.path: m.sha256 for _, m in self._recipe.files() if m.sha256}
        unknown = [path for path in named if known_sha256(path) is None]
        if unknown:
            total = sum(file_state_bytes(path) for path in unknown)
            self._progress.start(f"Checking {len(unknown)} models", total)
        problems = []
        for path, sha256 in named.items():
            found = self._wait(path)
            if path in unknown:
                self._progress.advance(file_state_bytes(path))
            if found != sha256:
                problems.append(
                    f"{path} has SHA-256 {found[:10]}, the recipe wants "
                    f"{sha256[:10]}; give the folder of the right file."
                )
        if problems:
            raise RecipeError(problems)

    def known(self) -> Mapping[int, str] | None:
        """All hashes if they are known without waiting, else None."""
        if all(known_sha256(model.path) for _, model in self._recipe.files()):
            return self.result()
        return None

    def result(self) -> Mapping[int, str]:
        """All hashes by model node index; waits for them."""
        return {i: self._wait(model.path) for i, model in self._recipe.files()}

    def _wait(self, path: str) -> str:
        future = self._futures[path]
        while wait([future], timeout=0.1).not_done:
            self._progress.check()
        return future.result()


def file_state_bytes(path: str) -> int:
    """The size of a file."""
    from pathlib import Path

    return file_state(Path(path)).n_bytes
