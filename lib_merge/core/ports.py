"""Ports: what the core needs from a host, a scorer, a sink and a progress display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from lib_merge.core.user_settings import SettingsStore


class Progress(Protocol):
    """Where long work reports; one call per tensor or image at most."""

    def start(self, label: str, total: int, unit: str = "B") -> None:
        """Begin a phase of `total` units ("B" for bytes, "images", "trials")."""
        ...

    def advance(self, amount: int) -> None:
        """Say that this much more is done; safe from any thread."""
        ...

    def check(self) -> None:
        """Give the user a chance to stop.

        Raises:
            Cancelled: The user asked to stop.
        """
        ...


class Sink(Protocol):
    """Where merged values go: a file being written or a model in memory."""

    def write(self, key: str, start: int, values: Tensor) -> None:
        """Take a flat run of one tensor's values.

        Args:
            key: The output key.
            start: Index of the first value in the flattened tensor.
            values: 1-D, in the task's dtype, contiguous; reused by the caller after
                return. Ranges never overlap; calls may come from several threads.
        """
        ...


@dataclass(frozen=True)
class CheckpointEntry:
    """A checkpoint that the host offers.

    Attributes:
        title: What the host shows.
        path: The file.
        sha256: If the host knows it.
    """

    title: str
    path: Path
    sha256: str | None = None


OptionValue = str | int | float | bool | None
"""What a setting of a WebUI can be set to."""


@dataclass(frozen=True)
class RenderRequest:
    """One picture to render. Sizes in pixels.

    Names are those of the WebUI's txt2img API, so that payload files read as they are.
    Empty texts and zeros from `clip_skip` on mean: as the host has it, and in the hires
    pass as in the first one. `vae` is a file's name as the host lists it.
    """

    prompt: str
    negative_prompt: str = ""
    seed: int = 0
    steps: int = 20
    cfg_scale: float = 7.0
    width: int = 512
    height: int = 512
    sampler_name: str = "Euler"
    scheduler: str = "Automatic"
    enable_hr: bool = False
    denoising_strength: float = 0.7
    hr_scale: float = 2.0
    hr_upscaler: str = "Latent"
    hr_second_pass_steps: int = 0
    hr_resize_x: int = 0
    hr_resize_y: int = 0
    restore_faces: bool = False
    tiling: bool = False
    clip_skip: int = 0
    vae: str = ""
    styles: tuple[str, ...] = ()
    override_settings: tuple[tuple[str, OptionValue], ...] = ()
    hr_prompt: str = ""
    hr_negative_prompt: str = ""
    hr_sampler_name: str = ""
    hr_scheduler: str = ""
    hr_cfg: float = 0.0
    subseed: int = -1
    subseed_strength: float = 0.0


class Catalog(Protocol):
    """Checkpoints on disk, as the host knows them."""

    def checkpoints(self) -> tuple[CheckpointEntry, ...]:
        """Every checkpoint, in the host's order."""
        ...

    def refresh(self) -> None:
        """Look at the disk again, where the host keeps a list."""
        ...

    def output_dir(self) -> Path:
        """Where merged checkpoints are saved by default."""
        ...

    def data_dir(self) -> Path:
        """Where studies, recipes and reports are kept."""
        ...

    def register(self, path: Path) -> CheckpointEntry:
        """Make a newly saved file selectable in the host without a restart."""
        ...


class LiveModel(Sink, Protocol):
    """The loaded model, open for writing; only valid inside `Loader.edit()`."""

    def refusal(self) -> str | None:
        """Why weights cannot be written in place (quantised ...), or None."""
        ...

    def missing(self, keys: Sequence[str]) -> tuple[str, ...]:
        """Those of the file's keys that the loaded model has no place for."""
        ...


class Loader(Protocol):
    """The model that the host holds in memory."""

    def loaded(self) -> Path | None:
        """The file of the loaded model, or None when none is loaded."""
        ...

    def load(self, path: Path) -> None:
        """Load a checkpoint through the host's own loader, unless already loaded.

        Raises:
            HostError: The host could not load it.
        """
        ...

    def identity(self) -> object:
        """Changes whenever somebody else loaded or reloaded the model.

        Two equal values mean: what we wrote last is still what the model holds.
        """
        ...

    def edit(self) -> AbstractContextManager[LiveModel]:
        """Open the loaded model for writing, holding the host's lock.

        On entry LoRA patches are undone and their backups forgotten; on exit prompt
        caches are cleared. Never nest; never render inside.

        Raises:
            HostError: No model is loaded, or it refuses in-place writes.
        """
        ...

    def restore(self) -> None:
        """Bring the original weights of the loaded file back, bit for bit."""
        ...


class Renderer(Protocol):
    """The host's own image pipeline."""

    @property
    def max_batch(self) -> int:
        """How many requests `render` takes at once (1 inside a WebUI)."""
        ...

    def unsupported(self, request: RenderRequest) -> tuple[str, ...]:
        """What of a request this host cannot do, one sentence each.

        `render` leaves these things out.
        """
        ...

    def render(self, requests: Sequence[RenderRequest]) -> list[Image]:
        """Render each request, in order, taking the host's lock for this call only.

        Raises:
            Cancelled: The user pressed the host's Interrupt.
            HostError: The host failed; its own exception is the cause.
        """
        ...


class Devices(Protocol):
    """Where the host computes."""

    def device(self) -> str:
        """The torch device of the loaded model, e.g. "cpu" or "cuda:0"."""
        ...


class Jobs(Protocol):
    """The host's queue and its interrupt."""

    def interrupt(self) -> None:
        """Ask the host to stop the picture that is being rendered."""
        ...


class Host(Protocol):
    """One place that MergeLab runs in, as a set of ports."""

    @property
    def id(self) -> str:
        """Permanent id: a1111, forge, reforge, diffusers."""
        ...

    @property
    def label(self) -> str:
        """What people call it, with its version."""
        ...

    @property
    def catalog(self) -> Catalog:
        """Checkpoints on disk."""
        ...

    @property
    def loader(self) -> Loader:
        """The loaded model."""
        ...

    @property
    def renderer(self) -> Renderer:
        """The image pipeline."""
        ...

    @property
    def devices(self) -> Devices:
        """Where it computes."""
        ...

    @property
    def jobs(self) -> Jobs:
        """Queue and interrupt."""
        ...

    @property
    def settings(self) -> SettingsStore:
        """The user's settings."""
        ...


class LoadedScorer(Protocol):
    """A scorer with its model in memory."""

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """One raw score a picture; higher is better.

        Args:
            images: RGB pictures.
            prompts: One a picture, without emphasis syntax or LoRA tags.
        """
        ...

    def close(self) -> None:
        """Free the model's memory."""
        ...


@dataclass(frozen=True)
class ScorerOption:
    """A setting of one scorer.

    Attributes:
        name: Its name.
        default: Its text when it is not given.
        help: What it does, one sentence.
        is_required: Whether the scorer cannot work without it.
    """

    name: str
    default: str
    help: str
    is_required: bool = False


@dataclass(frozen=True)
class ScorerCard:
    """What a user should know of a scorer.

    Attributes:
        training: What it learnt from.
        licence: Of its weights.
        weights: What its weights file or folder is, and where it is looked for.
        url: Where the weights are published, or "".
        options: Its settings.
        has_memory: Whether it keeps what it learns in a folder of the study, which
            takes the place of its weights.
    """

    training: str
    licence: str
    weights: str
    url: str = ""
    options: tuple[ScorerOption, ...] = ()
    has_memory: bool = False


class Scorer(Protocol):
    """A way to judge pictures; one module-level SCORER a file."""

    @property
    def id(self) -> str:
        """Permanent id."""
        ...

    @property
    def label(self) -> str:
        """What people call it."""
        ...

    @property
    def range(self) -> tuple[float, float]:
        """Usual range of its raw scores, for axes."""
        ...

    @property
    def card(self) -> ScorerCard:
        """Training data, licence, weights and settings."""
        ...

    def unavailable_reason(
        self,
        *,
        weights: Path | None = None,
        options: Mapping[str, str] | None = None,
    ) -> str | None:
        """None when it can be loaded with these, else why not and what to do."""
        ...

    def load(
        self,
        *,
        device: str = "cpu",
        weights: Path | None = None,
        progress: Progress | None = None,
        options: Mapping[str, str] | None = None,
    ) -> LoadedScorer:
        """Load the model.

        Args:
            device: torch device.
            weights: Its weights, if not where it looks itself.
            progress: Shows a download, and is asked whether to stop.
            options: Its settings by name (see its card); absent ones take defaults.

        Raises:
            ScorerError: Library or weights are missing or wrong.
        """
        ...
