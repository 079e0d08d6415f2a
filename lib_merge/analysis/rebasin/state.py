"""How far a search is, in a file, so that a stopped or killed one goes on."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_merge.analysis.rebasin.spec import PermutationSpec
from lib_merge.analysis.rebasin.structure import allows
from lib_merge.checkpoint.hashes import cache_dir
from lib_merge.checkpoint.header import file_state

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lib_merge.analysis.rebasin.pair import Pair

VERSION = 1
_EVERY_S = 10.0
_log = logging.getLogger(__name__)


@dataclass
class SearchState:
    """Everything that a search knows at one moment.

    Attributes:
        permutations: The choice so far.
        is_guessing: Whether the first guess is still being made.
        guessed: Permutations that the guess has chosen, in order.
        start: Where the search began: "identity", "guess", or "" before that.
        sweep: Number of sweeps that are finished.
        position: How far the present sweep is.
        waiting: Permutations whose best choice may have changed.
        score: The inner product of A with B as permuted.
        scores: At the start and after every sweep.
        gains: What each permutation added to the score.
    """

    permutations: dict[str, NDArray[np.int64]]
    is_guessing: bool = True
    guessed: list[str] = field(default_factory=list)
    start: str = ""
    sweep: int = 0
    position: int = 0
    waiting: set[str] = field(default_factory=set)
    score: float = 0.0
    scores: list[float] = field(default_factory=list)
    gains: dict[str, float] = field(default_factory=dict)


class StateFile:
    """Keeps a search's state; a file that cannot be written is no error.

    Args:
        path: The file.
        signature: Equal for searches that take the same steps.
        spec: Of the pair.
        interval_s: Least time between two writes.
    """

    def __init__(
        self,
        path: Path,
        signature: str,
        spec: PermutationSpec,
        *,
        interval_s: float = _EVERY_S,
    ) -> None:
        self.path = path
        self._signature = signature
        self._spec = spec
        self._interval_s = interval_s
        self._last = time.monotonic()

    def load(self) -> SearchState | None:
        """The state that an earlier process left of the same search, if it is sound."""
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
            if data["version"] != VERSION or data["signature"] != self._signature:
                return None
            return self._read(data)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
            _log.warning(
                "%s is damaged (%s); the search starts anew.", self.path, fault
            )
            return None

    def _read(self, data: Mapping[str, Any]) -> SearchState:
        import numpy as np

        permutations = self._spec.identity()
        for name, text in data["permutations"].items():
            found = np.frombuffer(base64.b64decode(text), dtype="<i4").astype(np.int64)
            one = self._spec.permutations[name]
            if len(found) != one.width or not allows(one.structure, found):
                raise ValueError(f"no permutation of {name}")
            permutations[name] = found
        fields = {name: data[name] for name in _PLAIN}
        return SearchState(permutations, **fields, waiting=set(data["waiting"]))

    def save(self, state: SearchState, *, is_due: bool = True) -> None:
        """Write the state.

        Args:
            state: The state.
            is_due: Write now; otherwise only if the last time is long enough ago.
        """
        import numpy as np

        now = time.monotonic()
        if not is_due and now - self._last < self._interval_s:
            return
        self._last = now
        data: dict[str, Any] = {"version": VERSION, "signature": self._signature}
        data |= {name: getattr(state, name) for name in _PLAIN}
        data["waiting"] = sorted(state.waiting)
        data["permutations"] = {
            name: base64.b64encode(found.astype("<i4").tobytes()).decode()
            for name, found in state.permutations.items()
            if not np.array_equal(found, np.arange(len(found)))
        }
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(data), encoding="utf-8")
            partial.replace(self.path)
        except OSError as fault:
            _log.warning("%s cannot be written: %s", self.path, fault)

    def remove(self) -> None:
        """Forget the state; safe to call when there is none."""
        self.path.unlink(missing_ok=True)


_PLAIN = (
    *("is_guessing", "guessed", "start", "sweep", "position"),
    *("score", "scores", "gains"),
)


def state_file_of(pair: Pair, *parts: object, folder: Path | None = None) -> StateFile:
    """Where the search of a pair keeps its state.

    Args:
        pair: The pair.
        parts: What else changes its steps: seed, arithmetic, device.
        folder: None means the user's cache.
    """
    digest = hashlib.sha256(repr(parts).encode())
    for header in pair.headers:
        digest.update(f"{header.path}{file_state(header.path)}".encode())
    digest.update(repr(pair.spec.permutations).encode())
    signature = digest.hexdigest()
    place = folder or cache_dir() / "rebasin"
    return StateFile(place / f"{signature[:16]}.json", signature, pair.spec)
