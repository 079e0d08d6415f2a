"""The standalone host: checkpoints rendered by diffusers, no WebUI around.

Prompts are plain text here: the WebUI's emphasis syntax is the WebUI's own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_merge.core.ports import (
    Catalog,
    Devices,
    Jobs,
    LiveModel,
    Loader,
    Renderer,
    RenderRequest,
)
from lib_merge.core.user_settings import SettingsStore
from lib_merge.errors import Cancelled, HostError, MemoryLimitError
from lib_merge.hosts._diffusers_limits import LATENT_MODES, unsupported
from lib_merge.hosts._diffusers_weights import open_weights
from lib_merge.hosts._diffusers_words import prompt_arguments
from lib_merge.hosts._folders import Folders
from lib_merge.hosts._gate import Gate
from lib_merge.hosts._pipeline_configs import (
    PipelineConfig,
    check_readable,
    config_for,
    find_pipeline_configs,
    shape_of,
)
from lib_merge.hosts._settings_file import SettingsFile

if TYPE_CHECKING:
    from PIL.Image import Image

_log = logging.getLogger(__name__)

SAMPLERS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "LMS": ("LMSDiscreteScheduler", {}),
    "DDIM": ("DDIMScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}),
    "DPM++ 2M SDE": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++"},
    ),
}
"""The WebUI's sampler names and the diffusers scheduler that each one is."""

SMALL_UNET_PARAMS = 50_000_000
"""Below this many parameters pictures are rendered in batches."""

BATCH_OF_SMALL = 16


class DiffusersHost:
    """Every port of a host, on a diffusers pipeline.

    Args:
        model_dirs: Folders searched for *.safetensors. A folder `pipeline` (diffusers
            configs, tokenizer) in or beside one of them serves every checkpoint of the
            widths it describes; other checkpoints use diffusers' own configs.
        config_dirs: Further folders with a `pipeline`.
        output_dir: Where merged checkpoints go; searched too.
        data_dir: Where studies, recipes and reports go.
        device: torch device to render on.
    """

    id = "diffusers"

    def __init__(
        self,
        model_dirs: Sequence[Path],
        output_dir: Path,
        data_dir: Path,
        device: str = "cpu",
        *,
        config_dirs: Sequence[Path] = (),
    ) -> None:
        folders = (*model_dirs, output_dir)
        self.settings: SettingsStore = SettingsFile(Path(data_dir) / "settings.json")
        self.catalog: Catalog = Folders(folders, output_dir, data_dir, self.settings)
        state = _Pipeline(device, find_pipeline_configs((*folders, *config_dirs)))
        self.loader: Loader = state
        self.renderer: Renderer = _Renderer(state)
        self.devices: Devices = state
        self.jobs: Jobs = state

    @property
    def label(self) -> str:
        """Name and version."""
        import diffusers

        return f"diffusers {diffusers.__version__}"


class _Pipeline:
    """The loaded pipeline: Loader, Devices and Jobs in one, guarded by one lock."""

    def __init__(self, device: str, configs: Sequence[PipelineConfig]) -> None:
        self._device = device
        self._configs = configs
        self._path: Path | None = None
        self._state: tuple[int, int] | None = None
        self._generation = 0
        self.gate = Gate(threading.Lock())
        self.stop = threading.Event()
        self.pipe: Any = None
        # Nobody else changes the pipeline, so its parameters are looked up once.
        self._weights: LiveModel | None = None
        # The model's own noise schedule: a sampler made from the one before it would
        # keep that one's options.
        self.schedule: Any = None
        self.is_small = False

    # Devices and Jobs

    def device(self) -> str:
        """The device that the pipeline renders on."""
        return self._device

    def interrupt(self) -> None:
        """Stop the picture that is being rendered after its current step."""
        self.stop.set()

    def on_step_end(
        self, pipe: Any, step: int, timestep: Any, values: dict[str, Any]
    ) -> dict[str, Any]:
        """diffusers calls this after every step; an interrupt ends the call."""
        if self.stop.is_set():
            raise Cancelled("The picture was interrupted.")
        return values

    # Loader

    def loaded(self) -> Path | None:
        """The file of the loaded pipeline."""
        return self._path

    def identity(self) -> object:
        """Counts loads; nobody else can change the pipeline."""
        return self._generation

    def load(self, path: Path) -> None:
        """Load a checkpoint unless it is the loaded one."""
        wanted = path.resolve()
        with self.gate.hold():
            # A file saved anew under the same name is another model.
            if self._path != wanted or self._state != _file_state(wanted):
                self._load(wanted)

    def restore(self) -> None:
        """Load the same file again."""
        with self.gate.hold():
            if self._path is not None:
                self._load(self._path)

    def _load(self, path: Path) -> None:
        if not path.is_file():
            raise HostError(f"{path} is not there; choose a model that exists.")
        # A file that cannot even be opened must not cost the user the loaded model.
        check_readable(path)
        self.pipe, self._path, self._weights = None, None, None
        self._state = _file_state(path)
        self._generation += 1
        try:
            self.pipe = self._build(path)
        except MemoryError as fault:
            words = f"{path.name} does not fit in memory; close other programs."
            raise MemoryLimitError(words) from fault
        except (OSError, ValueError, KeyError, RuntimeError, TypeError) as fault:
            said = f"{type(fault).__name__}: {fault}".partition("\n")[0].rstrip(".")
            raise HostError(
                f"diffusers cannot load {path.name}: {said}. It must be a whole SD1, "
                "SD2 or SDXL checkpoint. Usual widths need diffusers' configs from the "
                "hub once, others their own in a folder 'pipeline' in or beside theirs."
            ) from fault
        n_values = sum(p.numel() for p in self.pipe.unet.parameters())
        self.is_small = n_values < SMALL_UNET_PARAMS
        self.schedule = self.pipe.scheduler.config
        self._path = path

    def _build(self, path: Path) -> Any:
        import diffusers
        import torch

        is_xl = shape_of(path, "conditioner.embedders.1.model.ln_final.weight") != ()
        name = "StableDiffusionXLPipeline" if is_xl else "StableDiffusionPipeline"
        options: dict[str, Any] = {}
        if not is_xl:
            options.update(safety_checker=None, requires_safety_checker=False)
        config = config_for(path, self._configs)
        if config is not None:
            options.update(config=str(config.folder), local_files_only=True)
        dtype = torch.float32 if self._device == "cpu" else torch.float16
        with _quiet(diffusers):
            pipe = getattr(diffusers, name).from_single_file(
                str(path), torch_dtype=dtype, **options
            )
        pipe.set_progress_bar_config(disable=True)
        return pipe.to(self._device)

    @contextmanager
    def edit(self) -> Iterator[LiveModel]:
        """Open the pipeline's weights for writing."""
        import torch

        with self.gate.hold(), torch.inference_mode():
            if self.pipe is None or self._path is None:
                raise HostError("No model is loaded; load one first.")
            if self._weights is None:
                self._weights = open_weights(self.pipe, self._path)
            yield self._weights


def _file_state(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size)


@contextmanager
def _quiet(diffusers: Any) -> Iterator[None]:
    """diffusers reports every load at warning level and with a bar; errors only."""
    level = diffusers.logging.get_verbosity()
    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    try:
        yield
    finally:
        diffusers.logging.set_verbosity(level)
        diffusers.logging.enable_progress_bar()


class _Renderer:
    """Pictures through the pipeline's own call, one lock per call."""

    def __init__(self, state: _Pipeline) -> None:
        self._state = state

    @property
    def max_batch(self) -> int:
        """Small demo models are fastest in batches; full-size ones go one by one."""
        return BATCH_OF_SMALL if self._state.is_small else 1

    def unsupported(self, request: RenderRequest) -> tuple[str, ...]:
        """What of a request diffusers cannot do, one sentence each."""
        return unsupported(request)

    def render(self, requests: Sequence[RenderRequest]) -> list[Image]:
        """Render the requests in order.

        Raises:
            Cancelled: `Jobs.interrupt` was called.
            HostError: An unknown sampler, or the pipeline failed.
        """
        state = self._state
        images: list[Image] = []
        with state.gate.hold():
            if state.pipe is None:
                raise HostError("No model is loaded; load one first.")
            state.stop.clear()
            for group in _alike(requests, self.max_batch):
                images.extend(_render_group(state, group))
        return images


def _alike(
    requests: Sequence[RenderRequest], limit: int
) -> Iterator[Sequence[RenderRequest]]:
    """Neighbours that differ in prompts and seed only, in groups that fit a batch."""
    group: list[RenderRequest] = []
    for request in requests:
        twin = replace(request, prompt="", negative_prompt="", seed=0)
        if group:
            first = replace(group[0], prompt="", negative_prompt="", seed=0)
            if twin != first or len(group) >= limit:
                yield group
                group = []
        group.append(request)
    if group:
        yield group


def _render_group(state: _Pipeline, group: Sequence[RenderRequest]) -> list[Image]:
    import torch

    first = group[0]
    state.pipe.scheduler = _scheduler(
        state.schedule, first.sampler_name, first.scheduler
    )
    call: dict[str, Any] = {
        "guidance_scale": first.cfg_scale,
        "num_inference_steps": first.steps,
        "generator": _generators(group),
        "callback_on_step_end": state.on_step_end,
    }
    try:
        with torch.inference_mode():
            words = prompt_arguments(
                state.pipe,
                [request.prompt for request in group],
                [request.negative_prompt for request in group],
                first.clip_skip,
            )
            if not first.enable_hr:
                size = {"width": first.width, "height": first.height}
                return list(state.pipe(**call, **words, **size).images)
            return _render_hires(state, group, call, words)
    except torch.cuda.OutOfMemoryError as fault:
        raise MemoryLimitError(
            f"A picture of {first.width}x{first.height} does not fit on "
            f"{state.device()}; use smaller pictures."
        ) from fault
    except (RuntimeError, ValueError, TypeError) as fault:
        raise HostError(
            f"diffusers failed on prompt {first.prompt!r}, seed {first.seed}: "
            f"{type(fault).__name__}: {fault}."
        ) from fault


def _render_hires(
    state: _Pipeline,
    group: Sequence[RenderRequest],
    call: dict[str, Any],
    words: Mapping[str, Any],
) -> list[Image]:
    """The WebUI's hires pass with its "Latent" upscalers: enlarge, then denoise."""
    import diffusers
    from torch.nn.functional import interpolate

    pipe, first = state.pipe, group[0]
    size = {"width": first.width, "height": first.height}
    latents = pipe(**call, **words, **size, output_type="latent").images
    factor = pipe.vae_scale_factor
    width = first.hr_resize_x or round(first.width * first.hr_scale)
    height = first.hr_resize_y or round(first.height * first.hr_scale)
    mode, is_smooth = LATENT_MODES.get(first.hr_upscaler, LATENT_MODES["Latent"])
    large = interpolate(
        latents,
        size=(height // factor, width // factor),
        mode=mode,
        antialias=is_smooth,
    )
    second = diffusers.AutoPipelineForImage2Image.from_pipe(pipe)
    second.set_progress_bar_config(disable=True)
    steps = first.hr_second_pass_steps or first.steps
    call["num_inference_steps"] = steps
    call["strength"] = first.denoising_strength
    words = prompt_arguments(
        pipe,
        [one.hr_prompt or one.prompt for one in group],
        [one.hr_negative_prompt or one.negative_prompt for one in group],
        first.clip_skip,
    )
    if first.hr_cfg:
        call["guidance_scale"] = first.hr_cfg
    if first.hr_sampler_name or first.hr_scheduler:
        second.scheduler = _scheduler(
            state.schedule,
            first.hr_sampler_name or first.sampler_name,
            first.hr_scheduler or first.scheduler,
        )
    return list(second(**call, **words, image=large).images)


def _generators(group: Sequence[RenderRequest]) -> list[Any]:
    """One CPU generator a picture: a picture never depends on its neighbours' seeds."""
    import torch

    return [torch.Generator("cpu").manual_seed(request.seed) for request in group]


def _scheduler(schedule: Any, sampler: str, scheduler: str) -> Any:
    import diffusers

    name = sampler.removesuffix(" Karras")
    if name not in SAMPLERS:
        raise HostError(
            f"Sampler '{sampler}' is not one that the standalone app "
            f"has; use one of: {', '.join(SAMPLERS)}."
        )
    class_name, options = SAMPLERS[name]
    is_karras = scheduler == "Karras" or name != sampler
    extra = {"use_karras_sigmas": True} if is_karras else {}
    kind = getattr(diffusers, class_name)
    return kind.from_config(schedule, **options, **extra)
