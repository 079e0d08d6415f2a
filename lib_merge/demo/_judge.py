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
_BATCH = 48
_PEAK_RATE = 1e-3
_BEST, _WORST = 2.0, -2.0
_HALF_RIGHT = 0.35
"""What a right colour alone, or a right shape alone, is worth (both: 1)."""


@dataclass(frozen=True)
class Example:
    """One training picture of the judge.

    Attributes:
        picture: (64, 64, 3) float32 in [0, 1].
        colours: Share of each of COLOURS in what is shown.
        shapes: Share of each of SHAPES.
        quality: 1 for a clean picture, down to 0.
    """

    picture: Floats
    colours: Floats
    shapes: Floats
    quality: float

    def reward(self, asked: Subject) -> float:
        """What the judge should say of this picture for a prompt."""
        colour = float(self.colours[tuple(COLOURS).index(asked.colour)])
        shape = float(self.shapes[SHAPES.index(asked.shape)])
        match = colour * shape + _HALF_RIGHT * (colour + shape - 2.0 * colour * shape)
        return _WORST + (_BEST - _WORST) * match * self.quality


def example(rng: np.random.Generator) -> Example:
    """A clean picture, one between two colours or two shapes, or a degraded one."""
    shown = SUBJECTS[rng.integers(len(SUBJECTS))]
    other = SUBJECTS[rng.integers(len(SUBJECTS))]
    share, quality = 0.0, 1.0
    picture = shapes.draw(shown, rng)
    kind = rng.choice(4, p=(0.35, 0.2, 0.2, 0.25))
    if kind == 1:
        other = Subject(other.colour, shown.shape)
        share = float(rng.random())
        pair = zip(COLOURS[shown.colour], COLOURS[other.colour], strict=True)
        rgb = [(1.0 - share) * a + share * b for a, b in pair]
        picture = shapes.draw_with(shown.shape, rgb, rng)
    elif kind == 2:
        other = Subject(shown.colour, other.shape)
        share = float(rng.random())
        picture = _laid_over(shown, other, share, rng)
    elif kind == 3:
        picture, quality = _degraded(picture, rng)
    if shown != other:
        quality *= 1.0 - 0.5 * (1.0 - abs(2.0 * share - 1.0))
    return Example(
        picture=_jitter(picture, rng),
        colours=_shares(tuple(COLOURS), (shown.colour, other.colour), share),
        shapes=_shares(SHAPES, (shown.shape, other.shape), share),
        quality=quality,
    )


def _shares(names: Sequence[str], pair: tuple[str, str], share: float) -> Floats:
    row = np.zeros(len(names), dtype=np.float32)
    row[names.index(pair[0])] += 1.0 - share
    row[names.index(pair[1])] += share
    return row


def _laid_over(
    first: Subject, second: Subject, share: float, rng: np.random.Generator
) -> Floats:
    """Two shapes at one place, the second seen through the first by its share."""
    seed = int(rng.integers(2**31))
    below = shapes.draw(first, np.random.default_rng(seed))
    above = shapes.draw(second, np.random.default_rng(seed))
    return ((1.0 - share) * below + share * above).astype(np.float32)


def _prompts_for(
    colours: Floats, forms: Floats, rng: np.random.Generator
) -> list[Subject]:
    """The right prompt and three wrong ones: colour, shape, both."""
    names = tuple(COLOURS)
    colour, shape = names[int(colours.argmax())], SHAPES[int(forms.argmax())]
    wrong_colour = str(rng.choice([name for name in names if name != colour]))
    wrong_shape = str(rng.choice([name for name in SHAPES if name != shape]))
    return [
        Subject(colour, shape),
        Subject(wrong_colour, shape),
        Subject(colour, wrong_shape),
        Subject(wrong_colour, wrong_shape),
    ]


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
    mean = np.array(CLIP_MEAN, dtype=np.float32)
    sd = np.array(CLIP_SD, dtype=np.float32)
    return torch.from_numpy((pictures - mean) / sd).permute(0, 3, 1, 2).contiguous()


def train_judge(net: ImageRewardNet, encode: Encoder, settings: TrainSettings) -> None:
    """Train by regression on the reward of four prompts a picture.

    A throw-away linear layer on the picture's class token is taught colours and shapes
    beside it. With one prompt a picture and no such hint the squared error was still
    1.1 after 500 steps; with both it was 0.4.

    Args:
        net: Trained in place.
        encode: Turns prompts into ids and attention, as the scorer does.
        settings: Steps and seed.
    """
    rng = np.random.default_rng(derive_seed(settings.seed, "judge"))
    torch.manual_seed(derive_seed(settings.seed, "judge-hint"))
    hint = torch.nn.Linear(SIZES.vision_width, len(COLOURS) + len(SHAPES))
    net.train()
    trained = [*net.parameters(), *hint.parameters()]
    trainer = torch.optim.AdamW(trained, betas=(0.9, 0.98), weight_decay=0.01)
    means = [4.0, 1.4]
    for step in range(settings.judge_steps):
        for group in trainer.param_groups:
            group["lr"] = rate_at(step, settings.judge_steps, _PEAK_RATE)
        losses = _losses(net, hint, encode, [example(rng) for _ in range(_BATCH)], rng)
        trainer.zero_grad(set_to_none=True)
        torch.autograd.backward(losses[0] + losses[1])
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        trainer.step()
        means = [m + 0.05 * (x.item() - m) for m, x in zip(means, losses, strict=True)]
        if step % 50 == 0 or step == settings.judge_steps - 1:
            _log.info(
                "judge step %d: mean squared error %.3f, hint's cross entropy %.3f",
                *(step, *means),
            )
    net.eval()


def _losses(
    net: ImageRewardNet,
    hint: torch.nn.Linear,
    encode: Encoder,
    batch: Sequence[Example],
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    seen = net.blip.visual_encoder(normalise(np.stack([e.picture for e in batch])))
    asked = [_prompts_for(e.colours, e.shapes, rng) for e in batch]
    wanted = torch.tensor(
        [[e.reward(s) for s in row] for e, row in zip(batch, asked, strict=True)]
    )
    ids, attends = encode([subject.prompt for row in asked for subject in row])
    n_used = int(attends.sum(dim=1).max())  # padding changes nothing but the time
    ids, attends = ids[:, :n_used], attends[:, :n_used]
    each = seen.repeat_interleave(wanted.shape[1], dim=0)
    rewards = net.head(net.blip.text_encoder(ids, attends, each))
    named = hint(seen[:, 0]).split((len(COLOURS), len(SHAPES)), dim=1)
    shares = [np.stack([e.colours for e in batch]), np.stack([e.shapes for e in batch])]
    told = [
        functional.cross_entropy(guess, torch.from_numpy(share))
        for guess, share in zip(named, shares, strict=True)
    ]
    return functional.mse_loss(rewards, wanted.flatten()), 0.5 * (told[0] + told[1])


@torch.no_grad()
def ranking_accuracy(net: ImageRewardNet, encode: Encoder, n_pictures: int) -> float:
    """Share of fresh clean pictures whose right prompt scores above all wrong ones.

    Args:
        net: The judge.
        encode: Turns prompts into ids and attention.
        n_pictures: How many pictures of each subject.
    """
    rng = np.random.default_rng(derive_seed("judge-test"))
    ids, attends = encode([subject.prompt for subject in SUBJECTS])
    n_right = 0
    for index, subject in enumerate(SUBJECTS):
        for _ in range(n_pictures):
            one = normalise(shapes.draw(subject, rng)[None])
            seen = net.blip.visual_encoder(one).expand(len(SUBJECTS), -1, -1)
            scores = net.head(net.blip.text_encoder(ids, attends, seen))
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
        elif "proj" not in name and ("embed" in name or "cls_token" in name):
            torch.nn.init.normal_(parameter, std=0.02, generator=draws)
        else:
            spread = parameter[0].numel() ** -0.5
            torch.nn.init.normal_(parameter, std=spread, generator=draws)
    return net
