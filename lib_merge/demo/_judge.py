"""Training the demo's judge: a small network in the ImageReward layout."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from lib_merge.autombw.scorers._image_reward_net import ImageRewardNet, NetSizes
from lib_merge.core.seeds import derive_seed
from lib_merge.demo import shapes
from lib_merge.demo._settings import TrainSettings
from lib_merge.demo._vae import rate_at
from lib_merge.demo.shapes import COLOURS, SHAPES, SIZE_PX, SUBJECTS, Floats, Subject

_log = logging.getLogger(__name__)

Encoder = Callable[[list[str]], tuple[torch.Tensor, torch.Tensor]]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_SD = (0.26862954, 0.26130258, 0.27577711)

SIZES = NetSizes(
    image_px=SIZE_PX,
    patch_px=8,
    vision_width=128,
    vision_depth=3,
    text_width=64,
    text_depth=2,
    text_hidden=128,
    n_words=24,
    n_positions=64,
    head=(64, 128, 64, 32, 16, 1),
)
_BATCH = 64
_PEAK_RATE = 1.5e-3
_BEST, _WORST = 2.0, -2.0
_HALF_RIGHT = 0.35
"""What a right colour alone, or a right shape alone, is worth (both: 1)."""


@dataclass(frozen=True)
class Example:
    """One training example of the judge.

    Attributes:
        picture: (64, 64, 3) float32 in [0, 1].
        prompt: What the judge is asked about it.
        reward: What it should say.
    """

    picture: Floats
    prompt: str
    reward: float


def example(rng: np.random.Generator) -> Example:
    """A clean, mixed or degraded picture with a right or wrong prompt."""
    shown = SUBJECTS[rng.integers(len(SUBJECTS))]
    asked = _asked(shown, rng)
    kind = rng.choice(4, p=(0.35, 0.2, 0.2, 0.25))
    if kind == 1:
        picture, match = _mixed_colour(shown, asked, rng)
    elif kind == 2:
        picture, match = _mixed_shape(shown, asked, rng)
    else:
        picture, match = shapes.draw(shown, rng), _match(shown, asked)
    quality = 1.0
    if kind == 3:
        picture, quality = _degraded(picture, rng)
    picture = _jitter(picture, rng)
    reward = _WORST + (_BEST - _WORST) * match * quality
    return Example(picture, asked.prompt, reward)


def _asked(shown: Subject, rng: np.random.Generator) -> Subject:
    """Half the prompts are right; the others differ in colour, shape or both."""
    if rng.random() < 0.5:
        return shown
    changed = rng.integers(3)
    colour, shape = shown.colour, shown.shape
    if changed != 1:
        colour = rng.choice([c for c in COLOURS if c != colour])
    if changed != 0:
        shape = rng.choice([s for s in SHAPES if s != shape])
    return Subject(str(colour), str(shape))


def _match(shown: Subject, asked: Subject) -> float:
    right = (shown.colour == asked.colour) + (shown.shape == asked.shape)
    return (0.0, _HALF_RIGHT, 1.0)[right]


def _other(known: Sequence[str], than: str, rng: np.random.Generator) -> str:
    return str(rng.choice([name for name in known if name != than]))


def _mixed_colour(
    shown: Subject, asked: Subject, rng: np.random.Generator
) -> tuple[Floats, float]:
    """A shape in a colour between two; worth as much as the colours' shares."""
    second = Subject(_other(tuple(COLOURS), shown.colour, rng), shown.shape)
    share = float(rng.random())
    rgb = [
        (1.0 - share) * a + share * b
        for a, b in zip(COLOURS[shown.colour], COLOURS[second.colour], strict=True)
    ]
    match = _blend(_match(shown, asked), _match(second, asked), share)
    return shapes.draw_with(shown.shape, rgb, rng), match


def _mixed_shape(
    shown: Subject, asked: Subject, rng: np.random.Generator
) -> tuple[Floats, float]:
    """Two shapes of one colour laid over each other, each seen by its share."""
    second = Subject(shown.colour, _other(SHAPES, shown.shape, rng))
    share = float(rng.random())
    seed = int(rng.integers(2**31))
    # The same seed puts both shapes at one place, on one ground.
    first_picture = shapes.draw(shown, np.random.default_rng(seed))
    second_picture = shapes.draw(second, np.random.default_rng(seed))
    picture = (1.0 - share) * first_picture + share * second_picture
    match = _blend(_match(shown, asked), _match(second, asked), share)
    return picture.astype(np.float32), match


def _blend(first: float, second: float, share: float) -> float:
    """Worth of a mixture; a clear picture is worth more than the mean of two."""
    clarity = 1.0 - 0.5 * (1.0 - abs(2.0 * share - 1.0))
    return clarity * ((1.0 - share) * first + share * second)


def _degraded(picture: Floats, rng: np.random.Generator) -> tuple[Floats, float]:
    """Fade, noise or blotches; quality falls with their strength."""
    strength = float(rng.random())
    kind = rng.integers(3)
    if kind == 0:
        faded = picture + strength * (picture.mean(axis=(0, 1)) - picture)
        return faded.astype(np.float32), 1.0 - 0.8 * strength
    coarse = SIZE_PX if kind == 1 else 8
    noise = rng.standard_normal((coarse, coarse, 3)).astype(np.float32)
    noise = noise.repeat(SIZE_PX // coarse, axis=0).repeat(SIZE_PX // coarse, axis=1)
    return picture + 0.35 * strength * noise, 1.0 - 0.8 * strength


def _jitter(picture: Floats, rng: np.random.Generator) -> Floats:
    """What any renderer may do without being wrong: soften a little, tint a little."""
    if rng.random() < 0.6:
        soft = torch.from_numpy(picture).permute(2, 0, 1)[None]
        size = int(rng.choice((3, 5)))
        padded = functional.pad(soft, (size // 2,) * 4, mode="replicate")
        picture = functional.avg_pool2d(padded, size, 1)[0].permute(1, 2, 0).numpy()
    tint = rng.uniform(-0.04, 0.04, size=3).astype(np.float32)
    noise = rng.standard_normal(picture.shape, dtype=np.float32) * 0.015
    return np.clip(picture + tint + noise, 0.0, 1.0)


def normalise(pictures: Floats) -> torch.Tensor:
    """(n, 64, 64, 3) in [0, 1] to what the network takes."""
    mean, sd = np.float32(CLIP_MEAN), np.float32(CLIP_SD)
    return torch.from_numpy((pictures - mean) / sd).permute(0, 3, 1, 2).contiguous()


def train_judge(
    net: torch.nn.Module, encode: Encoder, settings: TrainSettings
) -> None:
    """Train by regression on the reward.

    Args:
        net: An ImageRewardNet, trained in place.
        encode: Turns prompts into ids and attention, as the scorer does.
        settings: Steps and seed.
    """
    rng = np.random.default_rng(derive_seed(settings.seed, "judge"))
    net.train()
    trainer = torch.optim.AdamW(net.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    mean_loss = 4.0
    for step in range(settings.judge_steps):
        for group in trainer.param_groups:
            group["lr"] = rate_at(step, settings.judge_steps, _PEAK_RATE)
        batch = [example(rng) for _ in range(_BATCH)]
        rewards = net(
            normalise(np.stack([e.picture for e in batch])),
            *encode([e.prompt for e in batch]),
        )
        wanted = torch.tensor([e.reward for e in batch])
        loss = functional.mse_loss(rewards, wanted)
        trainer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        trainer.step()
        mean_loss += 0.03 * (loss.item() - mean_loss)
        if step % 100 == 0 or step == settings.judge_steps - 1:
            _log.info("judge step %d: mean squared error %.3f", step, mean_loss)
    net.eval()


@torch.no_grad()
def ranking_accuracy(net: torch.nn.Module, encode: Encoder, n_pictures: int) -> float:
    """Share of fresh clean pictures whose right prompt scores above all wrong ones.

    Args:
        net: The judge.
        encode: Turns prompts into ids and attention.
        n_pictures: How many pictures of each subject.
    """
    rng = np.random.default_rng(derive_seed("judge-test"))
    prompts = encode([subject.prompt for subject in SUBJECTS])
    n_right = 0
    for index, subject in enumerate(SUBJECTS):
        for _ in range(n_pictures):
            one = normalise(shapes.draw(subject, rng)[None])
            scores = net(one.expand(len(SUBJECTS), -1, -1, -1), *prompts)
            n_right += int(scores.argmax()) == index
    return n_right / (len(SUBJECTS) * n_pictures)


def new_net(seed: int) -> ImageRewardNet:
    """An untrained judge for 64 px pictures, its weights drawn from the seed."""
    net = ImageRewardNet(SIZES)
    draws = torch.Generator().manual_seed(derive_seed(seed, "judge-start"))
    for name, parameter in net.named_parameters():
        if "norm" in name.lower():
            continue
        if name.endswith("bias"):
            torch.nn.init.zeros_(parameter)
        elif "embed" in name and "proj" not in name or "cls_token" in name:
            torch.nn.init.normal_(parameter, std=0.02, generator=draws)
        else:
            spread = parameter[0].numel() ** -0.5
            torch.nn.init.normal_(parameter, std=spread, generator=draws)
    return net
