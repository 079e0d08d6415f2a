"""A host for the tab's tests: real files in a folder, a loaded model that is a name."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from lib_merge.core.ports import CheckpointEntry, RenderRequest, ScorerCard
from lib_merge.hosts._settings_file import SettingsFile


class FakeCatalog:
    """Checkpoints of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registered: list[Path] = []
        self.n_refreshes = 0

    def checkpoints(self) -> tuple[CheckpointEntry, ...]:
        """Every file, by name."""
        files = sorted(self.folder.glob("*.safetensors"))
        return tuple(CheckpointEntry(title=f.name, path=f) for f in files)

    def refresh(self) -> None:
        """Count it; the folder is read at every listing."""
        self.n_refreshes += 1

    def output_dir(self) -> Path:
        """The same folder."""
        return self.folder

    def data_dir(self) -> Path:
        """A folder beside it."""
        path = self.folder / "data"
        path.mkdir(exist_ok=True)
        return path

    def register(self, path: Path) -> CheckpointEntry:
        """Remember that it was told."""
        self.registered.append(path)
        return CheckpointEntry(title=path.name, path=path)


class FakeLoader:
    """A loaded model that remembers what was asked of it."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self.n_loads = 0
        self.n_restores = 0
        self.written: dict[str, float] = {}

    def loaded(self) -> Path | None:
        """The file."""
        return self.path

    def load(self, path: Path) -> None:
        """Pretend to load."""
        if path != self.path:
            self.path = path
            self.n_loads += 1

    def identity(self) -> object:
        """Changes with every load."""
        return (self.path, self.n_loads)

    @contextmanager
    def edit(self) -> Iterator[Any]:
        """A model with a place for every key."""
        yield self

    def restore(self) -> None:
        """Forget what was written."""
        self.n_restores += 1
        self.written.clear()

    def refusal(self) -> str | None:
        """Nothing is refused."""
        return None

    def missing(self, keys: Sequence[str]) -> tuple[str, ...]:
        """Nothing is missing."""
        del keys
        return ()

    def write(self, key: str, start: int, values: Any) -> None:
        """Keep the first value of a tensor."""
        if start == 0:
            self.written[key] = float(values[0])


class FakeRenderer:
    """Pictures whose colour tells what was written into the model.

    Args:
        loader: The model.
    """

    max_batch = 4

    def __init__(self, loader: FakeLoader) -> None:
        self._loader = loader
        self.pause_s = 0.0

    def unsupported(self, request: RenderRequest) -> tuple[str, ...]:
        """It can do everything."""
        return ()

    def render(self, requests: Sequence[RenderRequest]) -> list[Image.Image]:
        """A striped picture each, so that none is flat."""
        time.sleep(self.pause_s)
        total = sum(self._loader.written.values())
        red = round(128 + 4 * total) % 256
        return [_striped(red, request.seed % 256) for request in requests]


def _striped(red: int, green: int) -> Image.Image:
    image = Image.new("RGB", (32, 32), (red, green, 120))
    image.paste((255, 255, 255), (0, 0, 32, 8))
    return image


class FakeScorer:
    """Likes red."""

    id = "fake"
    label = "Fake scorer"
    range = (-1.0, 1.0)
    card = ScorerCard("nothing", "none", "none")

    def unavailable_reason(
        self, *, weights: Any = None, options: Any = None
    ) -> str | None:
        """It is always there."""
        return None

    def load(
        self, *, device: str = "cpu", weights: Any = None, progress: Any = None
    ) -> FakeScorer:
        """Nothing to load."""
        del device, weights, progress
        return self

    def score(
        self, images: Sequence[Image.Image], prompts: Sequence[str]
    ) -> list[float]:
        """The red of a pixel below the stripe, between -1 and 1."""
        del prompts
        return [image.getpixel((16, 20))[0] / 128 - 1 for image in images]

    def close(self) -> None:
        """Nothing to free."""


class FakeHost:
    """All ports over one folder.

    Args:
        folder: Where its checkpoints lie.
    """

    id = "fake"
    label = "fake host"

    def __init__(self, folder: Path) -> None:
        self.catalog = FakeCatalog(folder)
        self.loader = FakeLoader()
        self.renderer = FakeRenderer(self.loader)
        self.n_interrupts = 0
        self.devices = self
        self.jobs = self
        self.settings = SettingsFile(self.catalog.data_dir() / "settings.json")

    def device(self) -> str:
        """Where it computes."""
        return "cpu"

    def interrupt(self) -> None:
        """Count."""
        self.n_interrupts += 1
