"""What the fake WebUIs share: the host's modules, its rules of processing, its traps.

A fake "picture" is a digest of every weight that a real one would depend on, so that
two pictures are equal exactly when the real ones would be.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.fake_jobs import (
    NansException,
    Processed,
    ScheduledProcessing,
    StableDiffusionProcessing,
    digest,
    draw,
)


class FifoLock:
    """The host's queue lock; where the real one waits for ever, this one says so."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.owner: int | None = None

    def __enter__(self) -> None:
        assert self.owner != threading.get_ident(), "deadlock: queue_lock taken twice"
        self._lock.acquire()
        self.owner = threading.get_ident()

    def __exit__(self, *fault: object) -> None:
        self.owner = None
        self._lock.release()


class State:
    """shared.state: begin() wipes the flags, end() leaves them."""

    def __init__(self) -> None:
        self.interrupted = self.skipped = self.stopping_generation = False
        self.job = ""
        self.jobs: list[str] = []

    def begin(self, job: str = "(unknown)") -> None:
        self.interrupted = self.skipped = self.stopping_generation = False
        self.job = job
        self.jobs.append(job)

    def end(self) -> None:
        self.job = ""

    def interrupt(self) -> None:
        self.interrupted = True

    def skip(self) -> None:
        self.skipped = True


class Options:
    """shared.opts: `set` calls the callback, which takes the lock."""

    def __init__(self, **data: Any) -> None:
        self.data: dict[str, Any] = data
        self.on_change: dict[str, Callable[[], None]] = {}
        self.data_labels: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__["data"]:
            return self.__dict__["data"][name]
        if name in self.__dict__["data_labels"]:
            return self.__dict__["data_labels"][name].default
        raise AttributeError(name)

    def set(self, name: str, value: Any) -> None:
        if self.data.get(name) != value:
            self.data[name] = value
            self.on_change.get(name, lambda: None)()

    def add_option(self, name: str, info: Any) -> None:
        self.data_labels[name] = info

    def save(self, filename: str) -> None:
        Path(filename).write_text(json.dumps(self.data), encoding="utf-8")


class OptionInfo:
    """shared.OptionInfo, as far as extensions use it."""

    def __init__(self, default: Any, label: str, *, section: tuple[str, str]) -> None:
        self.default, self.label, self.section = default, label, section
        self.comment = ""

    def info(self, text: str) -> OptionInfo:
        self.comment = text
        return self


class FakeWebUi:
    """A host's modules; subclasses say how models are loaded, patched and used."""

    host_id = ""
    processing_type: type[StableDiffusionProcessing] = ScheduledProcessing

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models = folder / "models" / "Stable-diffusion"
        self.models.mkdir(parents=True)
        self.step_s = 0.0
        self.loads: list[str] = []
        self.jobs: list[StableDiffusionProcessing] = []
        self.render_threads: list[int] = []
        self.lock = FifoLock()
        self.state = State()
        self.opts = Options(sd_model_checkpoint=None, **self.options())
        self.cmd_opts = types.SimpleNamespace(
            ckpt_dir=None, no_half=True, no_half_vae=False
        )
        self.samplers = {"Euler": 1, "Euler a": 2, "DPM++ 2M": 3}
        self.lists: dict[str, dict[str, Any]] = {"list": {}, "aliases": {}}
        self.info_type = _checkpoint_info(self)
        self.job_type = self._job_type()

    # What the subclasses fill in

    def options(self) -> dict[str, Any]:
        """The host's own options."""
        return {}

    def sd_models(self) -> dict[str, Any]:
        """What modules.sd_models offers beside the list."""
        raise NotImplementedError

    def more_modules(self) -> dict[str, types.ModuleType]:
        """Modules that only this host has."""
        return {}

    def current_model(self) -> Any:
        """shared.sd_model."""
        raise NotImplementedError

    def before_picture(self, job: Any) -> None:
        """What process_images does first: load what the options ask for."""
        raise NotImplementedError

    def use_loras(self, names: list[str]) -> None:
        """What the prompt's <lora:...> tags lead to, an empty list included."""
        raise NotImplementedError

    def parts(self) -> tuple[dict[str, torch.nn.Module], dict[str, torch.nn.Module]]:
        """(text encoders, UNet and VAE) as a picture is computed with them."""
        raise NotImplementedError

    def info_key(self) -> object:
        """What the host's prompt cache takes for the model's identity."""
        return self.current_model().sd_checkpoint_info

    # Installing

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Put the modules where `import modules` finds them, and nothing else."""
        for name in list(sys.modules):
            if name.split(".")[0] in _HOST_PACKAGES:
                patch.delitem(sys.modules, name)
        package = types.ModuleType("modules")
        package.__path__ = []
        patch.setitem(sys.modules, "modules", package)
        for name, module in {**self._modules(), **self.more_modules()}.items():
            patch.setitem(sys.modules, name, module)
            parent, _, leaf = name.rpartition(".")
            if parent in sys.modules:
                setattr(sys.modules[parent], leaf, module)

    def add_checkpoint(self, path: Path) -> Any:
        """A file that the host has listed already."""
        info = self.info_type(str(path))
        info.register()
        if self.opts.data["sd_model_checkpoint"] is None:
            self.opts.data["sd_model_checkpoint"] = info.title
        return info

    def _modules(self) -> dict[str, types.ModuleType]:
        shared = _Shared("modules.shared")
        shared.__dict__.update(
            fake=self,
            state=self.state,
            opts=self.opts,
            cmd_opts=self.cmd_opts,
            config_filename=str(self.folder / "config.json"),
            OptionInfo=OptionInfo,
        )
        contents: dict[str, dict[str, Any]] = {
            "call_queue": {"queue_lock": self.lock},
            "devices": {
                "device": torch.device("cpu"),
                "torch_gc": lambda: None,
                "NansException": NansException,
            },
            "paths": {"data_path": str(self.folder)},
            "processing": {
                "StableDiffusionProcessing": self.job_type.__mro__[1],
                "StableDiffusionProcessingTxt2Img": self.job_type,
                "process_images": self.process_images,
            },
            "scripts": {"ScriptRunner": _ScriptRunner},
            "sd_models": {
                "checkpoints_list": self.lists["list"],
                "checkpoint_aliases": self.lists["aliases"],
                "CheckpointInfo": self.info_type,
                "list_models": self.list_models,
                "model_path": str(self.models),
                **self.sd_models(),
            },
            "sd_samplers": {
                "all_samplers_map": self.samplers,
                "get_sampler_and_scheduler": self.split_sampler,
            },
            "sd_unet": {"current_unet": None},
            "sd_vae": {"loaded_vae_file": None, "base_vae": None},
        }
        found: dict[str, types.ModuleType] = {"modules.shared": shared}
        for name, content in contents.items():
            module = types.ModuleType(f"modules.{name}")
            module.__dict__.update(content)
            found[module.__name__] = module
        return found

    def list_models(self) -> None:
        """Clear the lists and make new records of every file, as all hosts do."""
        for found in self.lists.values():
            found.clear()
        for path in sorted(self.models.glob("*.safetensors")):
            self.info_type(str(path)).register()

    def _job_type(self) -> type[StableDiffusionProcessing]:
        base = type("StableDiffusionProcessing", (self.processing_type,), {})
        base.cached_c = base.cached_uc = [None, None]  # type: ignore[attr-defined]
        kind = type("StableDiffusionProcessingTxt2Img", (base,), {})
        kind.cached_hr_c = kind.cached_hr_uc = [None, None]  # type: ignore[attr-defined]
        return kind

    # Running

    def split_sampler(self, name: str, scheduler: str) -> tuple[str, str]:
        """An unknown name silently becomes the host's first sampler."""
        for label in ("Karras", "Exponential"):
            if name.endswith(f" {label}"):
                name, scheduler = name[: -len(label) - 1], label
        return (name if name in self.samplers else "Euler", scheduler)

    def process_images(self, job: Any) -> Processed:
        """modules.processing.process_images."""
        assert self.lock.owner is not None, "process_images without the queue lock"
        self.jobs.append(job)
        self.render_threads.append(threading.get_ident())
        self.before_picture(job)
        self.state.skipped = False
        if self.state.interrupted or self.state.stopping_generation:
            return Processed([])
        names = re.findall(r"<lora:(\w+):[\d.]+>", job.prompt)
        if not job.disable_extra_networks:
            self.use_loras(names)
        with torch.no_grad():
            text, rest = self.parts()
            prompt = re.sub(r"<lora:.*?>", "", job.prompt)
            cond = self._cached_cond(job, (prompt, tuple(names)), text)
            done = 0
            while done < job.steps and not self._is_stopped():
                time.sleep(self.step_s)
                done += 1
            return Processed([draw(job, cond, digest(rest), done)])

    def _is_stopped(self) -> bool:
        return self.state.interrupted or self.state.skipped

    def _cached_cond(
        self, job: Any, prompt: object, text: Mapping[str, torch.nn.Module]
    ) -> str:
        key = (prompt, self.info_key())
        if job.cached_c[0] is not None and job.cached_c[0] == key:
            return str(job.cached_c[1])
        cond = hashlib.blake2b(f"{prompt}{digest(text)}".encode()).hexdigest()
        job.cached_c[0], job.cached_c[1] = key, cond
        return cond


_HOST_PACKAGES = ("modules", "modules_forge", "backend", "ldm_patched", "networks")


class _Shared(types.ModuleType):
    """modules.shared: sd_model is a property that may load."""

    @property
    def sd_model(self) -> Any:
        return self.__dict__["fake"].current_model()


class _ScriptRunner:
    def __init__(self) -> None:
        self.alwayson_scripts: list[Any] = []


def _checkpoint_info(fake: FakeWebUi) -> type:
    class CheckpointInfo:
        """Listed by a title that changes once the host has hashed the file."""

        def __init__(self, filename: str) -> None:
            self.filename = filename
            models = str(fake.models)
            inside = filename.startswith(models)
            self.name = filename[len(models) + 1 :] if inside else Path(filename).name
            self.title = self.name
            self.sha256: str | None = None

        def register(self) -> None:
            fake.lists["list"][self.title] = self
            fake.lists["aliases"].update({self.title: self, self.name: self})

        def calculate_shorthash(self) -> str:
            if self.sha256 is None:
                content = Path(self.filename).read_bytes()
                self.sha256 = hashlib.sha256(content).hexdigest()
                del fake.lists["list"][self.title]
                self.title = f"{self.name} [{self.sha256[:10]}]"
                self.register()
            return self.sha256[:10]

    return CheckpointInfo


def read_checkpoint(info: Any) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint; hashes the file as every host does on loading."""
    info.calculate_shorthash()
    return load_file(info.filename)
