"""A host without a diffusion model: pictures whose quality is a known landscape.

The quality of a picture depends on the block weights that are "in" the loaded model and
on the seed; it is written into the pixels, where `fake_scorer` reads it back. So the
whole way of a study (merge, render, store, score) is walked, in microseconds.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from lib_merge.autombw.payloads import Payload
from lib_merge.autombw.space import BlockRange
from lib_merge.autombw.study import StudySettings
from lib_merge.core.blocks import BlockId
from lib_merge.core.ports import CheckpointEntry, LiveModel, RenderRequest
from lib_merge.core.recipe import MergeNode, ModelNode, Recipe
from lib_merge.core.seeds import derive_seed
from lib_merge.errors import HostError

BLOCKS = ("CLIP_L", "TIME_EMBED", "IN00", "IN01", "M00", "OUT00", "OUT01", "OUT")

RAW_SPAN = 8.0
"""Raw scores lie in [-4, 4]."""


def best_value(block: str) -> float:
    """Where the landscape's top lies for a block, in [0.1, 0.9]."""
    return 0.1 + 0.8 * derive_seed("top", block) / 2**32


def quality(weights: dict[str, float], seed: int, noise: float = 0.05) -> float:
    """The raw score of a picture: 2 at the top, lower away from it, a seed's noise."""
    misses = [(weights.get(block, 0.0) - best_value(block)) ** 2 for block in BLOCKS]
    luck = derive_seed("luck", seed) / 2**32 - 0.5
    return 2.0 - 6.0 * sum(misses) / len(misses) + noise * luck


def picture(raw: float, size: int = 16) -> Image.Image:
    """A picture that holds a raw score in its first pixel; the rest is a gradient."""
    level = round((raw + RAW_SPAN / 2) / RAW_SPAN * 0xFFFFFF)
    level = min(max(level, 0), 0xFFFFFF)
    image = Image.linear_gradient("L").resize((size, size)).convert("RGB")
    image.putpixel((0, 0), (level >> 16, level >> 8 & 255, level & 255))
    return image


def raw_score(image: Image.Image) -> float:
    """What `picture` wrote."""
    red, green, blue = image.getpixel((0, 0))
    return ((red << 16) + (green << 8) + blue) / 0xFFFFFF * RAW_SPAN - RAW_SPAN / 2


class FakeLoader:
    """Holds a path and block weights instead of tensors."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self.weights: dict[str, float] | None = None
        self.generation = 0
        self.history: list[str] = []

    def loaded(self) -> Path | None:
        """The loaded file."""
        return self.path

    def identity(self) -> object:
        """Counts loads by others than the merger."""
        return self.generation

    def load(self, path: Path) -> None:
        """Load unless loaded."""
        if self.path != path:
            self.path, self.weights = path, None
            self.generation += 1
            self.history.append(path.name)

    @contextmanager
    def edit(self) -> Iterator[LiveModel]:
        """Nothing to open: `FakeMerger` writes weights itself."""
        raise HostError("The fake host has no tensors; use FakeMerger.")
        yield

    def restore(self) -> None:
        """Back to the file's own weights."""
        self.weights = None

    def effective(self) -> dict[str, float]:
        """The block weights that a picture is rendered with now."""
        if self.weights is not None:
            return self.weights
        is_b = self.path is not None and self.path.stem.endswith("b")
        return dict.fromkeys(BLOCKS, 1.0 if is_b else 0.0)


class FakeMerger:
    """Does what `engine.live.LiveMerger` does, to a `FakeLoader`."""

    def __init__(self, loader: FakeLoader) -> None:
        self.loader = loader
        self.n_merges = 0
        self.before_merge: Callable[[int], None] | None = None
        self._live: Recipe | None = None

    def recipe(self) -> Recipe | None:
        """The last recipe, unless somebody loaded a model since."""
        return self._live if self.loader.weights is not None else None

    def merge(self, recipe: Recipe) -> object:
        """Load A and note the recipe's block values."""
        self.n_merges += 1
        if self.before_merge is not None:
            self.before_merge(self.n_merges)
        first = recipe.nodes[recipe.first_model()]
        assert isinstance(first, ModelNode)
        self.loader.load(Path(first.path))
        last = recipe.nodes[-1]
        assert isinstance(last, MergeNode)
        self.loader.weights = {str(k): v for k, v in last.params[0][1].blocks}
        self._live = recipe
        return None

    def restore(self) -> None:
        """Back to A itself."""
        self.loader.restore()


class FakeRenderer:
    """Renders `picture(quality(...))`, with room for accidents."""

    def __init__(self, loader: FakeLoader, max_batch: int = 4) -> None:
        self._loader = loader
        self._max_batch = max_batch
        self.lock = threading.Lock()
        self.n_rendered = 0
        self.delay_s = 0.0
        self.before_render: Callable[[int], None] | None = None
        self.after_render: Callable[[int], None] | None = None
        self.is_flat: Callable[[int], bool] = lambda _: False

    @property
    def max_batch(self) -> int:
        """Requests a call."""
        return self._max_batch

    def unsupported(self, request: RenderRequest) -> tuple[str, ...]:
        """It can do everything."""
        return ()

    def render(self, requests: Sequence[RenderRequest]) -> list[Image.Image]:
        """One picture a request, holding the host's lock for this call only."""
        assert len(requests) <= self._max_batch
        with self.lock:
            if self.before_render is not None:
                self.before_render(self.n_rendered)
            images = [self._one(request) for request in requests]
            if self.after_render is not None:
                self.after_render(self.n_rendered)
        return images

    def _one(self, request: RenderRequest) -> Image.Image:
        time.sleep(self.delay_s)
        self.n_rendered += 1
        if self.is_flat(self.n_rendered):
            return Image.new("RGB", (16, 16))
        raw = quality(self._loader.effective(), request.seed)
        assert math.isfinite(raw)
        return picture(raw)


class _Catalog:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def checkpoints(self) -> tuple[CheckpointEntry, ...]:
        found = sorted(self._folder.glob("*.safetensors"))
        return tuple(CheckpointEntry(path.name, path) for path in found)

    def refresh(self) -> None:
        pass

    def output_dir(self) -> Path:
        return self._folder

    def data_dir(self) -> Path:
        return self._folder

    def register(self, path: Path) -> CheckpointEntry:
        return CheckpointEntry(path.name, path)


class _Devices:
    def device(self) -> str:
        return "cpu"


class _Jobs:
    def __init__(self) -> None:
        self.n_interrupts = 0

    def interrupt(self) -> None:
        self.n_interrupts += 1


class FakeStudyHost:
    """A host whose model is a table of block weights.

    Args:
        folder: Data and output folder.
        max_batch: Pictures a render call.
    """

    id = "fake"
    label = "fake host"

    def __init__(self, folder: Path, max_batch: int = 4) -> None:
        self.loader = FakeLoader()
        self.renderer = FakeRenderer(self.loader, max_batch)
        self.merger = FakeMerger(self.loader)
        self.catalog = _Catalog(folder)
        self.devices = _Devices()
        self.jobs = _Jobs()


def fake_settings(**changes: object) -> StudySettings:
    """Settings of a small study on the fake host: 8 blocks, 2 payloads, 3 pictures."""
    values: dict[str, object] = {
        "name": "fake",
        "method": "weighted_sum",
        "models": ("model_a.safetensors", "model_b.safetensors"),
        "payloads": (
            Payload(name="cat", prompt="a (cat:1.2)", seed=11, n_iter=2),
            Payload(name="dog", prompt="a dog", seed=22),
        ),
        "arch_id": "sd1",
        "ranges": tuple(BlockRange(BlockId(block)) for block in BLOCKS),
        "scorer": "fake",
        "sampler": "random",
        "n_trials": 8,
        "seed": 3,
        **changes,
    }
    return StudySettings(**values)  # type: ignore[arg-type]
