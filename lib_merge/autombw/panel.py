"""Panel: the scorers of a study, in memory only while there is room for them.

A scorer is loaded when it is first asked and stays. Where the image model needs the
memory, all scorers are unloaded before a picture is rendered and loaded again to judge
it: always, never, or ("auto") as soon as both were seen not to fit.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lib_merge.autombw.scoring import AUTO, UNLOAD, Judge
from lib_merge.core.ports import LoadedScorer, Progress, Scorer
from lib_merge.errors import InputError, MemoryLimitError, ScorerError

if TYPE_CHECKING:
    from PIL.Image import Image

_log = logging.getLogger(__name__)

_MARGIN = 1.1
"""Free memory must exceed what a picture took by this factor."""


class Gauge(Protocol):
    """Watches how much memory a picture takes."""

    def begin(self) -> None:
        """A picture is going to be rendered."""
        ...

    def end(self) -> None:
        """It was rendered."""
        ...

    def fits(self) -> bool:
        """Whether another one fits beside what is in memory now."""
        ...


class CudaGauge:
    """Reads torch's own counters of a CUDA device.

    Args:
        device: "cuda:0" ...
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._before = 0
        self._need = 0

    def begin(self) -> None:
        """Note what is allocated, and forget the peak so far."""
        import torch

        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = torch.cuda.memory_allocated(self._device)

    def end(self) -> None:
        """Note the peak."""
        import torch

        peak = torch.cuda.max_memory_allocated(self._device)
        self._need = max(self._need, peak - self._before)

    def fits(self) -> bool:
        """Whether the device's free memory takes another such peak."""
        import torch

        free = torch.cuda.mem_get_info(self._device)[0]
        reserved = torch.cuda.memory_reserved(self._device)
        free += reserved - torch.cuda.memory_allocated(self._device)
        return free >= _MARGIN * self._need


def find_scorer(scorer_id: str) -> Scorer:
    """The registered scorer of this id.

    Raises:
        UnknownIdError: There is none.
    """
    from lib_merge.autombw.scorers import scorers

    return scorers().get(scorer_id)


class Panel:
    """The scorers of a study.

    Args:
        judges: Which, with their weights files and options.
        device: torch device that they are loaded on.
        memory: auto, keep or unload.
        home: Where scorers that learn keep what they learnt.
        find: Gives the scorer of an id.
        gauge: Watches memory; by default the device's own, where it has one.

    Attributes:
        progress: Shows downloads, and is asked whether to stop; may be set later.

    Raises:
        UnknownIdError: A scorer that is not there.
    """

    progress: Progress | None = None

    def __init__(
        self,
        judges: Sequence[Judge],
        *,
        device: str = "cpu",
        memory: str = AUTO,
        home: Path | None = None,
        find: Callable[[str], Scorer] = find_scorer,
        gauge: Gauge | None = None,
    ) -> None:
        self._judges = tuple(judges)
        self._scorers = {judge.id: find(judge.id) for judge in judges}
        self._device = device
        self._home = home
        self._loaded: dict[str, LoadedScorer] = {}
        self._must_unload = memory == UNLOAD
        is_watched = memory == AUTO and device.startswith("cuda")
        self._gauge = gauge or (CudaGauge(device) if is_watched else None)
        self._memory = memory

    @property
    def ranges(self) -> Mapping[str, tuple[float, float]]:
        """The declared range of every scorer."""
        return {scorer_id: one.range for scorer_id, one in self._scorers.items()}

    @property
    def label(self) -> str:
        """What the scorers are called."""
        return ", ".join(one.label for one in self._scorers.values())

    def warm_up(self) -> None:
        """Load every scorer, so that what is wrong is told before work starts.

        Raises:
            InputError: A scorer cannot be loaded.
        """
        for judge in self._judges:
            self._ready(judge)
        if self._must_unload:
            self.unload()

    def score(
        self, images: Sequence[Image], prompts: Sequence[str]
    ) -> list[dict[str, float]]:
        """Every scorer's raw value by its id, one table a picture.

        Args:
            images: RGB pictures.
            prompts: One a picture, without emphasis syntax or LoRA tags.

        Raises:
            InputError: A scorer cannot be loaded.
            ScorerError: A scorer failed.
            MemoryLimitError: It does not even fit alone.
        """
        tables: list[dict[str, float]] = [{} for _ in images]
        for judge in self._judges:
            raws = self._score_with(judge, images, prompts)
            if len(raws) != len(images):
                raise ScorerError(
                    f"The scorer {judge.id} gave {len(raws)} scores for {len(images)} "
                    "pictures."
                )
            for table, raw in zip(tables, raws, strict=True):
                table[judge.id] = float(raw)
        return tables

    def _score_with(
        self, judge: Judge, images: Sequence[Image], prompts: Sequence[str]
    ) -> list[float]:
        try:
            return self._ready(judge).score(images, prompts)
        except out_of_memory_kinds():
            _log.warning("No memory for the scorer %s; all are unloaded.", judge.id)
        # Outside the except clause: the fault's frames hold what filled the memory.
        self._must_unload = True
        self.unload()
        return self._ready(judge).score(images, prompts)

    @contextmanager
    def rendering(self) -> Iterator[None]:
        """Make room for the image model, and watch what it takes."""
        if self._gauge is not None and self._memory == AUTO and self._loaded:
            self._must_unload = self._must_unload or not self._gauge.fits()
        if self._must_unload:
            self.unload()
        if self._gauge is None:
            yield
            return
        self._gauge.begin()
        yield
        self._gauge.end()

    def make_room(self) -> bool:
        """The image model ran out of memory: unload, from now on every time.

        Returns:
            Whether there was a scorer in memory, so that trying again makes sense.
        """
        self._must_unload = True
        return self.unload()

    def unload(self) -> bool:
        """Unload every scorer; whether there was one."""
        had_some = bool(self._loaded)
        while self._loaded:
            _, scorer = self._loaded.popitem()
            scorer.close()
        return had_some

    def _ready(self, judge: Judge) -> LoadedScorer:
        loaded = self._loaded.get(judge.id)
        if loaded is None:
            loaded = self._loaded[judge.id] = self._load(judge)
        return loaded

    def _load(self, judge: Judge) -> LoadedScorer:
        scorer = self._scorers[judge.id]
        options: dict[str, Any] = {}
        if judge.options:
            options["options"] = dict(judge.options)
        weights = Path(judge.weights_file) if judge.weights_file else None
        if weights is None and self._home is not None and scorer.card.has_memory:
            weights = self._home / judge.id
        try:
            return scorer.load(
                device=self._device,
                weights=weights,
                progress=self.progress,
                **options,
            )
        except ScorerError as fault:
            # No later trial would fare better: the study stops here, and waits.
            raise InputError(
                f"The scorer {judge.id} cannot be used: {fault}"
            ) from fault


def out_of_memory_kinds() -> tuple[type[BaseException], ...]:
    """What is raised when a device, or the machine, runs out of memory."""
    torch = sys.modules.get("torch")
    kinds: tuple[type[BaseException], ...] = (MemoryLimitError, MemoryError)
    if torch is not None:
        kinds = (*kinds, torch.cuda.OutOfMemoryError)
    return kinds
