"""The objective: merge a point in place, render payloads, check, store and score."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lib_merge.autombw._files import named_disk_faults
from lib_merge.autombw._pictures import PictureStore
from lib_merge.autombw.diversity import pixel_features
from lib_merge.autombw.panel import Panel
from lib_merge.autombw.records import ImageScore
from lib_merge.autombw.rescoring import ScoreKeeper
from lib_merge.autombw.scoring import SIGMOID
from lib_merge.autombw.space import Point
from lib_merge.autombw.study import Shot, StudySettings
from lib_merge.core.ports import Host, RenderRequest
from lib_merge.core.recipe import Recipe
from lib_merge.errors import HostError, MemoryLimitError, NonFiniteError

if TYPE_CHECKING:
    from PIL.Image import Image

_log = logging.getLogger(__name__)

FLAT_STD = 1.0
"""A picture whose channels all vary by less (standard deviation, of 255) is flat: what
black, grey and NaN decodes look like, and no picture of anything."""

N_JUDGED = 4
"""Batches that a trial is cut into at least when it may be given up between them."""

MAX_SWITCHES = 20
"""Times that one batch is rendered again because somebody switched the model."""


GoOn = Callable[[Sequence[ImageScore]], bool]
"""Given a trial's pictures so far, whether the rest is worth rendering."""


class Merger(Protocol):
    """What `engine.live.LiveMerger` offers to a study."""

    def merge(self, recipe: Recipe) -> object:
        """Load the recipe's first model and write the merged values into it."""
        ...

    def restore(self) -> None:
        """Bring the loaded file's own values back."""
        ...

    def recipe(self) -> Recipe | None:
        """What the loaded model holds, or None when it holds a file's own values."""
        ...


@dataclass(frozen=True)
class Measured:
    """What one point gave.

    Attributes:
        images: Every picture with its scores, in the order of the shots.
        merge_seconds: Wall time of merging.
        is_whole: False when `go_on` ended it before the last shot.
        features: What is compared of every picture to see how alike they are.
    """

    images: tuple[ImageScore, ...]
    merge_seconds: float
    is_whole: bool = True
    features: tuple[tuple[float, ...], ...] = ()


class LivePoint:
    """Keeps a point's merge in the host's model, whoever else loads models there.

    Args:
        host: The host.
        merger: Writes merges into the host's loaded model.
        settings: The study's settings.
    """

    def __init__(self, host: Host, merger: Merger, settings: StudySettings) -> None:
        self._host = host
        self._merger = merger
        self._settings = settings
        self._recipe: Recipe | None = None
        self._identity: object = None
        self._users_model: Path | None = None
        self._users_merge: Recipe | None = None
        self._is_put_back = True

    def ensure(self, point: Point) -> float:
        """Merge the point unless it is what the model holds.

        Returns:
            Seconds that it took.
        """
        recipe = self._settings.recipe(point)
        is_ours = self.is_undisturbed()
        if recipe == self._recipe and is_ours:
            return 0.0
        if self._is_put_back or (self._recipe is not None and not is_ours):
            # What the user chose, before the study or during it, is put back later.
            self._users_model = self._host.loader.loaded()
            self._users_merge = self._merger.recipe()
            _log.info("The user's model is %s.", self._users_model)
        started = time.monotonic()
        self._recipe = None
        self._is_put_back = False
        self._merger.merge(recipe)
        self._identity = self._host.loader.identity()
        self._recipe = recipe
        return time.monotonic() - started

    def is_undisturbed(self) -> bool:
        """Whether the model still holds what was written last."""
        return self._recipe is not None and (
            self._host.loader.identity() == self._identity
        )

    def put_back(self) -> None:
        """Give the user's model back, as it was before the study or chosen since."""
        if self._is_put_back:
            return
        if self._recipe is not None and not self.is_undisturbed():
            self._users_model = self._host.loader.loaded()
            self._users_merge = None
        self._recipe = None
        self._merger.restore()
        if self._users_merge is not None:
            self._merger.merge(self._users_merge)
        elif self._users_model is not None:
            self._host.loader.load(self._users_model)
        self._is_put_back = True


class Objective:
    """Measures points.

    Args:
        host: Renders.
        live: Merges.
        panel: Judges.
        keeper: Turns raw values into scores.
        gate: Called ahead of every batch; waits while paused, raises `Cancelled`.
        on_image: Told of every picture that was stored and scored.
    """

    def __init__(
        self,
        host: Host,
        live: LivePoint,
        panel: Panel,
        keeper: ScoreKeeper,
        *,
        gate: Callable[[], None],
        on_image: Callable[[Path, ImageScore], None],
    ) -> None:
        self._renderer = host.renderer
        self._live = live
        self._panel = panel
        self._keeper = keeper
        self._gate = gate
        self._on_image = on_image

    def measure(
        self,
        point: Point,
        shots: Sequence[Shot],
        folder: Path,
        *,
        go_on: GoOn | None = None,
    ) -> Measured:
        """Render and score every shot of a point, storing each picture at once.

        Args:
            point: What to merge.
            shots: The pictures, in the order in which they are rendered.
            folder: Where they go.
            go_on: Given the pictures so far after every batch but the last; False
                leaves the rest out.

        Raises:
            Cancelled: The user stopped the study, or the host's picture.
            DiskFullError: No room for a picture.
            NonFiniteError: A picture is flat or a score is not finite.
            MergeError: Whatever host, engine or scorer raise.
        """
        with named_disk_faults(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._gate()
        # A host knows its batch size once the model is loaded; another size gives
        # other last bits, and a resumed study must score as an uninterrupted one.
        found = Measured((), self._live.ensure(point))
        size = max(1, self._renderer.max_batch)
        if go_on is not None:
            size = min(size, max(1, len(shots) // N_JUDGED))
        with PictureStore() as store:
            for batch in _batches(shots, size):
                found = self._batch(point, batch, found, folder=folder, store=store)
                is_last = len(found.images) == len(shots)
                if not is_last and go_on is not None and not go_on(found.images):
                    return replace(found, is_whole=False)
        return found

    def _batch(
        self,
        point: Point,
        batch: Sequence[Shot],
        before: Measured,
        *,
        folder: Path,
        store: PictureStore,
    ) -> Measured:
        """Render, store and score some shots; what is measured with them."""
        self._gate()
        pictures, merging = self._render(point, batch)
        stored = [
            store.put(folder / shot.file, picture, partial(_looked_at, shot=shot))
            for shot, picture in zip(batch, pictures, strict=True)
        ]
        images = tuple(self._score(batch, pictures))
        features = tuple(written.result() for written in stored)
        for scored in images:
            self._on_image(folder / scored.file, scored)
        return Measured(
            (*before.images, *images),
            before.merge_seconds + merging,
            features=(*before.features, *features),
        )

    def _render(self, point: Point, batch: Sequence[Shot]) -> tuple[list[Image], float]:
        """Render a batch, again if the model was switched under it."""
        seconds = 0.0
        for _ in range(MAX_SWITCHES):
            seconds += self._live.ensure(point)
            pictures = self._render_with_room([shot.request for shot in batch])
            if len(pictures) != len(batch):
                raise HostError(
                    f"The host gave {len(pictures)} pictures for {len(batch)} "
                    "requests; see its log."
                )
            if self._live.is_undisturbed():
                return pictures, seconds
        raise HostError(
            f"The loaded model was switched {MAX_SWITCHES} times while one picture was "
            "rendered; leave the model alone for a moment and resume the study."
        )

    def _render_with_room(self, requests: Sequence[RenderRequest]) -> list[Image]:
        """Render; once more without scorers in memory if there was no room."""
        try:
            with self._panel.rendering():
                return self._renderer.render(requests)
        except MemoryLimitError:
            if not self._panel.make_room():
                raise
        _log.warning("No memory to render beside the scorers; they are unloaded.")
        with self._panel.rendering():
            return self._renderer.render(requests)

    def settle(self) -> bool:
        """Freeze the scale of scores when the first trials are in.

        Returns:
            Whether stored scores have changed, so that records must be read again.
        """
        return self._keeper.settle()

    def correct(self) -> bool:
        """Bring scores that other workers gave in line with the frozen scale.

        Returns:
            Whether stored scores have changed, so that records must be read again.
        """
        if self._keeper.scoring.normalise == SIGMOID:
            return False
        return self._keeper.correct() > 0

    def _score(
        self, batch: Sequence[Shot], pictures: Sequence[Image]
    ) -> Iterator[ImageScore]:
        prompts = [shot.payload.scorer_prompt for shot in batch]
        pictures = [picture.convert("RGB") for picture in pictures]
        tables = self._panel.score(pictures, prompts)
        for shot, prompt, raws in zip(batch, prompts, tables, strict=True):
            for scorer_id, raw in raws.items():
                if not math.isfinite(raw):
                    raise NonFiniteError(
                        f"The scorer gave {raw} ({scorer_id}) for {shot.file} "
                        f"('{prompt}')."
                    )
            yield ImageScore(
                file=shot.file,
                payload=shot.payload.name,
                seed=shot.request.seed,
                prompt=prompt,
                raws=raws,
                score=self._keeper.score(raws, shot.payload.name),
            )


def _batches(shots: Sequence[Shot], size: int) -> Iterator[Sequence[Shot]]:
    for start in range(0, len(shots), size):
        yield shots[start : start + size]


def _looked_at(picture: Image, shot: Shot) -> tuple[float, ...]:
    """What is compared of a picture; a flat one is refused."""
    _refuse_flat(picture, shot)
    return pixel_features(picture)


def _refuse_flat(picture: Image, shot: Shot) -> None:
    from PIL import ImageStat

    spread = max(ImageStat.Stat(picture.convert("RGB")).stddev)
    if spread < FLAT_STD:
        raise NonFiniteError(
            f"Picture {shot.file} ('{shot.payload.name}', seed {shot.request.seed}) is "
            f"flat (standard deviation {spread:.2f} of 255): this merge renders "
            "nothing, as after a NaN."
        )
