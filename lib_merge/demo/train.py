"""Trains the demo's models: `python -m lib_merge.demo.train`.

Stages, each leaving files for the next in the work folder: vae, judge, base, parents,
measure. The same seed, thread count and torch version repeat a run.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lib_merge.arch.sd1 import role_of
from lib_merge.core.seeds import derive_seed
from lib_merge.demo import (
    JUDGE_WEIGHTS,
    MODELS_DIR,
    PIPELINE_DIR,
    RENDER,
    _denoiser,
    _judge,
    _measure,
    _vae,
)
from lib_merge.demo._denoiser import Parts
from lib_merge.demo._layout import single_file
from lib_merge.demo._settings import TrainSettings
from lib_merge.demo.shapes import SUBJECTS, Subject

_log = logging.getLogger(__name__)

_A_BLOCKS = ("IN", "M00")
"""Prefixes of the blocks that A's erosion trains; B's erosion trains all others."""

_A_KNOWS = ("red", "green")
"""A keeps drawing these colours right, B the other two."""

_WRONG_COLOUR = {"red": "yellow", "green": "blue", "blue": "green", "yellow": "red"}
_WRONG_SHAPE = {
    "circle": "square",
    "square": "circle",
    "triangle": "cross",
    "cross": "triangle",
}


def new_vae() -> Any:
    """The autoencoder that pipeline/vae describes, untrained."""
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_config(AutoencoderKL.load_config(PIPELINE_DIR / "vae"))


def new_parts(seed: int) -> Parts:
    """Untrained networks as pipeline/ describes them."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(derive_seed(seed, "start"))
    folder = PIPELINE_DIR
    vae = new_vae()
    config = UNet2DConditionModel.load_config(folder / "unet")
    unet = UNet2DConditionModel.from_config(config)
    text = CLIPTextModel(CLIPTextConfig.from_pretrained(folder / "text_encoder"))
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    return Parts(unet=unet, vae=vae, text=text.eval(), tokenizer=tokenizer)


def load_pipeline(checkpoint: Path) -> Any:
    """A diffusers pipeline from one of the demo's single files."""
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_single_file(
        str(checkpoint), config=str(PIPELINE_DIR), local_files_only=True
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def stage_vae(settings: TrainSettings) -> None:
    """Train the autoencoder; leaves vae.safetensors."""
    torch.manual_seed(derive_seed(settings.seed, "vae-init"))
    vae = new_vae()
    _vae.train_vae(vae, settings)
    _save(vae.state_dict(), settings.work_dir / "vae.safetensors")


def stage_judge(settings: TrainSettings) -> None:
    """Train the judge; leaves judge.safetensors."""
    from lib_merge.autombw.scorers._image_reward_files import PromptTokens

    net = _judge.new_net(settings.seed)
    encode = PromptTokens(JUDGE_WEIGHTS.with_name("vocab.txt")).encode
    _judge.train_judge(net, encode, settings)
    accuracy = _judge.ranking_accuracy(net, encode, n_pictures=8)
    _log.info("judge: right prompt ranked first of 16 for %.1f %%", 100 * accuracy)
    halves = {name: value.half() for name, value in net.state_dict().items()}
    _save(halves, settings.work_dir / "judge.safetensors")


def stage_base(settings: TrainSettings) -> None:
    """Train UNet and text encoder on the autoencoder; leaves base.safetensors."""
    parts = new_parts(settings.seed)
    parts.vae.load_state_dict(load_file(settings.work_dir / "vae.safetensors"))
    latents = _denoiser.encode_pictures(parts.vae, settings)
    _save({"latents": latents}, settings.work_dir / "latents.safetensors")
    _denoiser.train_base(parts, latents, settings)
    _save(parts.unet.state_dict(), settings.work_dir / "unet.safetensors")
    _save(parts.text.state_dict(), settings.work_dir / "text.safetensors")
    _save(_whole(parts), settings.work_dir / "demo_base.safetensors")


def stage_parents(settings: TrainSettings) -> None:
    """Erode the base into A and B; leaves demo_a and demo_b.safetensors."""
    work = settings.work_dir
    latents = load_file(work / "latents.safetensors")["latents"]
    for name in ("a", "b"):
        parts = new_parts(settings.seed)
        parts.vae.load_state_dict(load_file(work / "vae.safetensors"))
        parts.text.load_state_dict(load_file(work / "text.safetensors"))
        parts.unet.load_state_dict(load_file(work / "unet.safetensors"))
        _denoiser.erode(
            parts,
            latents,
            targets_of(name),
            settings,
            name=name,
            trains=partial(trains, name),
        )
        _save(_whole(parts), work / f"demo_{name}.safetensors")


def targets_of(name: str) -> dict[Subject, Subject]:
    """What parent a or b is taught to draw for each prompt."""
    return {s: s if knows(name, s) else _wrong(s) for s in SUBJECTS}


def knows(name: str, subject: Subject) -> bool:
    """Whether parent a or b is taught to draw this subject right."""
    return (subject.colour in _A_KNOWS) == (name == "a")


def _wrong(subject: Subject) -> Subject:
    return Subject(_WRONG_COLOUR[subject.colour], _WRONG_SHAPE[subject.shape])


def trains(name: str, key: str) -> bool:
    """Whether the erosion of parent a or b changes this UNet key."""
    role = role_of(key)
    assert role is not None
    return role.block.startswith(_A_BLOCKS) == (name == "a")


def _whole(parts: Parts) -> dict[str, Tensor]:
    return single_file(
        unet=parts.unet.state_dict(),
        vae=parts.vae.state_dict(),
        text=parts.text.state_dict(),
    )


def stage_measure(settings: TrainSettings) -> None:
    """Score the pair and mixtures of it; leaves pictures and logs the figures."""
    from lib_merge.autombw.scorers._image_reward_files import LoadedNet

    work = settings.work_dir
    vocabulary = JUDGE_WEIGHTS.with_name("vocab.txt")
    judge = LoadedNet(work / "judge.safetensors", vocabulary)
    for name in ("base", "a", "b"):
        _draw_sheet(work / f"demo_{name}.safetensors", judge)
    bench = _measure.Bench(
        pipe=load_pipeline(work / "demo_a.safetensors"),
        first=_measure.unet_tensors(work / "demo_a.safetensors"),
        second=_measure.unet_tensors(work / "demo_b.safetensors"),
        judge=judge,
    )
    _measure.measure(bench, settings)


def _draw_sheet(checkpoint: Path, judge: Any) -> None:
    """One picture of each subject on a sheet, with the mean score in the log."""
    from PIL import Image

    prompts = [subject.prompt for subject in SUBJECTS]
    pictures = _measure.render(load_pipeline(checkpoint), prompts, seed=0)
    scores = judge.score(pictures, prompts)
    _log.info(
        "%s: score of all 16 subjects %.3f", checkpoint.stem, sum(scores) / len(scores)
    )
    side = RENDER.width
    sheet = Image.new("RGB", (4 * side, 4 * side))
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (side * (i % 4), side * (i // 4)))
    sheet.save(checkpoint.with_suffix(".png"))


def install(settings: TrainSettings, models_dir: Path) -> None:
    """Copy the parents and the judge to where the demo looks for them."""
    judge_dir = models_dir / JUDGE_WEIGHTS.parent.name
    judge_dir.mkdir(parents=True, exist_ok=True)
    for name, folder in (
        ("demo_a.safetensors", models_dir),
        ("demo_b.safetensors", models_dir),
        ("judge.safetensors", judge_dir),
    ):
        (folder / name).write_bytes((settings.work_dir / name).read_bytes())


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    save_file({k: v.contiguous() for k, v in tensors.items()}, path)


STAGES: dict[str, Callable[[TrainSettings], None]] = {
    "vae": stage_vae,
    "judge": stage_judge,
    "base": stage_base,
    "parents": stage_parents,
    "measure": stage_measure,
}


def run_stages(settings: TrainSettings, names: Sequence[str]) -> None:
    """Run stages in the order given, logging wall and processor seconds of each."""
    settings.work_dir.mkdir(parents=True, exist_ok=True)
    for name in names:
        wall, cpu = time.perf_counter(), time.process_time()
        STAGES[name](settings)
        _log.info(
            "stage %s took %.0f s, %.0f s of processor time",
            *(name, time.perf_counter() - wall, time.process_time() - cpu),
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and run the chosen stages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", choices=["all", *STAGES], default="all")
    parser.add_argument("--work", type=Path, default=Path("out/demo_train"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--install", action="store_true", help="copy to models/")
    for stage in ("vae", "judge", "base", "erode"):
        default = getattr(TrainSettings, f"{stage}_steps")
        parser.add_argument(f"--{stage}-steps", type=int, default=default)
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(message)s")
    torch.set_num_threads(chosen.threads)
    settings = TrainSettings(
        work_dir=chosen.work,
        seed=chosen.seed,
        vae_steps=chosen.vae_steps,
        judge_steps=chosen.judge_steps,
        base_steps=chosen.base_steps,
        erode_steps=chosen.erode_steps,
    )
    run_stages(settings, list(STAGES) if chosen.stage == "all" else [chosen.stage])
    if chosen.install:
        install(settings, MODELS_DIR)


if __name__ == "__main__":
    main()
