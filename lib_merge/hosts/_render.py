"""Rendering one picture in the host's own process, as its txt2img would."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_merge.core.ports import RenderRequest
from lib_merge.errors import Cancelled, HostError
from lib_merge.hosts._webui import WebUi, clear_prompt_caches, host_errors

if TYPE_CHECKING:
    from PIL.Image import Image

_log = logging.getLogger(__name__)

RELOADING_S = 2.0
"""How long after an Interrupt "Reload UI" may take to show itself."""

JOB = "MergeLab"
"""What the host's progress calls our jobs."""

_HIRES_FIELDS = (
    "denoising_strength",
    "hr_scale",
    "hr_upscaler",
    "hr_second_pass_steps",
    "hr_resize_x",
    "hr_resize_y",
)


_HIRES_EXTRA = (
    "hr_prompt",
    "hr_negative_prompt",
    "hr_sampler_name",
    "hr_scheduler",
    "hr_cfg",
)
"""Fields of the hires pass that take the first pass's value where they are empty."""

CLIP_SKIP = "CLIP_stop_at_last_layers"
VAE = "sd_vae"
FORGE_PARTS = "forge_additional_modules"
"""Forge's choice of VAE and text encoders; a change of it loads the model again."""

SWITCHES = frozenset(
    {
        "sd_model_checkpoint",
        FORGE_PARTS,
        "forge_preset",
        "forge_unet_storage_dtype",
        "sd_checkpoint_hash",
    }
)
"""Settings that would load a model in the place of the merge."""


class Interrupted(Cancelled):
    """The host's own Interrupt, whoever pressed it."""


class WebUiJobs:
    """The host's interrupt, and our own that no new job resets."""

    def __init__(self, ui: WebUi) -> None:
        self._ui = ui
        self.stop = threading.Event()

    def interrupt(self) -> None:
        """Ask for an end of the picture that is being rendered or waits to be."""
        self.stop.set()
        self._ui.shared.state.interrupt()


class WebUiRenderer:
    """`process_images` with no other extension's scripts around it.

    Args:
        ui: The host.
        jobs: Its interrupt.
        data_dir: Where the host would save pictures if it were told to.
    """

    max_batch = 1

    def __init__(self, ui: WebUi, jobs: WebUiJobs, data_dir: Path) -> None:
        self._ui = ui
        self._jobs = jobs
        self._data_dir = data_dir

    def render(self, requests: Sequence[RenderRequest]) -> list[Image]:
        """Render each request under the host's lock, one lock a picture.

        Raises:
            Cancelled: Interrupt or "stop after this one" was pressed.
            HostError: The host failed or the picture was skipped.
            MemoryLimitError: The device ran out of memory.
        """
        self._jobs.stop.clear()
        return [self._render_one(request) for request in requests]

    def _render_one(self, request: RenderRequest) -> Image:
        self._check_sampler(request)
        size = f"{request.width}x{request.height}"
        what = f"Rendering '{request.prompt[:60]}' ({size}, seed {request.seed})"
        with host_errors(self._ui, what):
            while True:
                page = self._page()
                try:
                    return self._ui.gate.run(lambda: self._job(request))
                except Interrupted:
                    if self._jobs.stop.is_set() or not self._is_reloading(page):
                        raise
                    _log.info("The UI is being reloaded; the picture is begun anew.")

    def _page(self) -> Any:
        """The host's served page; "Reload UI" makes another one."""
        return getattr(self._ui.shared, "demo", None)

    def _is_reloading(self, page: Any) -> bool:
        """Whether it was "Reload UI" that interrupted: it does so before all else."""
        end = time.monotonic() + RELOADING_S
        while time.monotonic() < end:
            server = getattr(page, "server", None)
            if (
                getattr(self._ui.shared.state, "server_command", None) == "restart"
                or getattr(server, "should_exit", False)
                or self._page() is not page
            ):
                return True
            time.sleep(0.05)
        return False

    def _job(self, request: RenderRequest) -> Image:
        state = self._ui.shared.state
        state.begin(job=JOB)
        try:
            # begin() has just wiped an Interrupt that came while we waited.
            if self._jobs.stop.is_set():
                raise Cancelled("Stopped before the picture was begun.")
            images, first = self._process(request)
            # Read before end() and the next begin(), which resets the flags.
            if state.interrupted:
                raise Interrupted("The picture was interrupted.")
            if getattr(state, "stopping_generation", False):
                raise Cancelled("The picture was interrupted.")
            if state.skipped:
                raise HostError("The picture was skipped in the WebUI.")
        finally:
            state.end()
        if len(images) <= first:
            raise HostError("The WebUI returned no picture and told no reason.")
        image: Image = images[first]
        return image if image.mode == "RGB" else image.convert("RGB")

    def _process(self, request: RenderRequest) -> tuple[Sequence[Any], int]:
        processing = self._ui.processing
        clear_prompt_caches(processing)
        job = processing.StableDiffusionProcessingTxt2Img(**self._arguments(request))
        # Not None: reForge looks into it. Empty: no other extension has a say.
        job.scripts = self._ui.scripts.ScriptRunner()
        job.script_args = []
        try:
            result = processing.process_images(job)
        finally:
            job.close()
        return result.images, int(getattr(result, "index_of_first_image", 0))

    def _arguments(self, request: RenderRequest) -> dict[str, Any]:
        folder = str(self._data_dir)
        arguments: dict[str, Any] = {
            "sd_model": self._ui.shared.sd_model,
            "outpath_samples": folder,
            "outpath_grids": folder,
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "seed": request.seed,
            "subseed": -1,
            "sampler_name": request.sampler_name,
            "batch_size": 1,
            "n_iter": 1,
            "steps": request.steps,
            "cfg_scale": request.cfg_scale,
            "width": request.width,
            "height": request.height,
            "restore_faces": request.restore_faces,
            "tiling": request.tiling,
            "do_not_save_samples": True,
            "do_not_save_grid": True,
            "styles": [name for name in request.styles if name in self._styles()],
            "override_settings": self._settings(request),
        }
        known = self._fields()
        if "scheduler" in known:
            arguments["scheduler"] = request.scheduler
        if request.subseed_strength:
            arguments["subseed"] = request.subseed
            arguments["subseed_strength"] = request.subseed_strength
        if request.enable_hr:
            arguments.update(_hires_arguments(request, known))
        return arguments

    def _settings(self, request: RenderRequest) -> dict[str, Any]:
        """The host's settings for one picture; it puts them back afterwards."""
        options = self._ui.shared.opts.data
        given = dict(request.override_settings)
        settings = {
            name: value
            for name, value in given.items()
            if name in options and name not in SWITCHES
        }
        if request.clip_skip:
            settings[CLIP_SKIP] = request.clip_skip
        if request.vae and self._vae_problem(request.vae) is None:
            settings[VAE] = request.vae
        return settings

    def unsupported(self, request: RenderRequest) -> tuple[str, ...]:
        """What of a request this WebUI cannot do, one sentence each."""
        known, options = self._fields(), self._ui.shared.opts.data
        found = []
        for name, _ in request.override_settings:
            if name in SWITCHES:
                found.append(f"the setting {name} would load another model: left out.")
            elif name not in options:
                found.append(f"this WebUI has no setting '{name}': left out.")
        styles = self._styles()
        found += [
            f"this WebUI has no style '{name}': left out."
            for name in request.styles
            if name not in styles
        ]
        problem = self._vae_problem(request.vae) if request.vae else None
        if problem is not None:
            found.append(problem)
        if request.scheduler not in ("", "Automatic") and "scheduler" not in known:
            found.append(
                f"this WebUI chooses no schedule type ('{request.scheduler}'): name it "
                "in the sampler's name."
            )
        wanted = _HIRES_EXTRA if request.enable_hr else ()
        found += [
            f"this WebUI has no {name} ('{getattr(request, name)}'): left out."
            for name in wanted
            if getattr(request, name) and name not in known
        ]
        return tuple(found)

    def _styles(self) -> Mapping[str, Any]:
        """The host's styles by name."""
        found = getattr(self._ui.shared, "prompt_styles", None)
        styles: Mapping[str, Any] = getattr(found, "styles", {})
        return styles

    def _vae_problem(self, name: str) -> str | None:
        """Why a VAE cannot be chosen for one picture, or None."""
        options = self._ui.shared.opts.data
        if VAE not in options or FORGE_PARTS in options:
            return (
                f"this WebUI cannot change the VAE ('{name}') without loading the "
                "model again: left out; choose it in the WebUI before the study."
            )
        listed = getattr(self._ui.sd_vae, "vae_dict", {})
        if name in ("None", "Automatic") or name in listed:
            return None
        return f"this WebUI has no VAE '{name}': left out."

    def _fields(self) -> frozenset[str]:
        kind = self._ui.processing.StableDiffusionProcessingTxt2Img
        return frozenset(field.name for field in fields(kind))

    def _check_sampler(self, request: RenderRequest) -> None:
        """Refuse a sampler that the host does not have: it would take its first one."""
        samplers = self._ui.sd_samplers
        name = request.sampler_name
        if name in samplers.all_samplers_map:
            return
        split = getattr(samplers, "get_sampler_and_scheduler", None)
        if split is not None:
            found = str(split(name, request.scheduler)[0])
            if name.startswith(f"{found} "):
                return
        known = ", ".join(sorted(samplers.all_samplers_map))
        raise HostError(f"This WebUI has no sampler '{name}'; it has: {known}.")


def _hires_arguments(request: RenderRequest, known: frozenset[str]) -> dict[str, Any]:
    arguments: dict[str, Any] = {"enable_hr": True}
    arguments.update({name: getattr(request, name) for name in _HIRES_FIELDS})
    for name in _HIRES_EXTRA:
        value = getattr(request, name)
        if value and name in known:
            arguments[name] = value
    if "hr_cfg" in known:
        # The Forges' default of 1 would drop the negative prompt in the second pass.
        arguments["hr_cfg"] = request.hr_cfg or request.cfg_scale
    if "hr_additional_modules" in known:
        # Forge searches this list without asking whether it is one.
        arguments["hr_additional_modules"] = ["Use same choices"]
    return arguments
