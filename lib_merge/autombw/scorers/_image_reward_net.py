"""The ImageReward network in plain torch; every size is read from the weights."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lib_merge.errors import ScorerError

REWARD_MEAN = 0.16717362830052426
REWARD_SD = 1.0333394966054072
"""Rewards are (head output - mean) / sd, constants of ImageReward-v1.0."""

_HEAD_WIDTH = 64
"""Width of an attention head, in ViT-L (1024 / 16) as in BERT-base (768 / 12)."""

_UNUSED = re.compile(r"^blip\.(vision_proj|text_proj)\.|\.position_ids$")


@dataclass(frozen=True)
class NetSizes:
    """What the weights' shapes say about the network.

    Attributes:
        image_px: Side of the square picture that the network sees.
        patch_px: Side of a patch.
        vision_width: Width of the picture transformer.
        vision_depth: Its layers.
        text_width: Width of the text transformer.
        text_depth: Its layers.
        text_hidden: Inner width of its feed-forward part.
        n_words: Rows of its word table.
        n_positions: Longest text in tokens.
        head: Widths of the reward head, input first, 1 last.
    """

    image_px: int
    patch_px: int
    vision_width: int
    vision_depth: int
    text_width: int
    text_depth: int
    text_hidden: int
    n_words: int
    n_positions: int
    head: tuple[int, ...]


class ImageRewardNet(nn.Module):
    """BLIP's picture and text encoders with a reward head.

    Parameter names equal those of ImageReward.pt.

    Source: Xu et al., ImageReward: Learning and Evaluating Human Preferences for
    Text-to-Image Generation, 2023, arxiv.org/abs/2304.05977; BLIP: Li et al., 2022,
    arxiv.org/abs/2201.12086.
    """

    def __init__(self, sizes: NetSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.blip = _Blip(sizes)
        self.mlp = _Head(sizes.head)

    def forward(self, pictures: Tensor, ids: Tensor, attends: Tensor) -> Tensor:
        """Rewards of (picture, text) pairs.

        Args:
            pictures: (n, 3, image_px, image_px), normalised with CLIP's mean and sd.
            ids: (n, n_tokens) word ids, [CLS] first.
            attends: (n, n_tokens), 1 for a token and 0 for padding.

        Returns:
            (n,) float32 rewards.
        """
        seen = self.blip.visual_encoder(pictures)
        return self.head(self.blip.text_encoder(ids, attends, seen))

    def head(self, read: Tensor) -> Tensor:
        """Rewards (n,) from the text encoder's output (n, n_tokens, width)."""
        reward = cast(Tensor, self.mlp(read[:, 0].float())).squeeze(-1)
        return (reward - REWARD_MEAN) / REWARD_SD


class _Blip(nn.Module):
    def __init__(self, sizes: NetSizes) -> None:
        super().__init__()
        self.visual_encoder = _VisionEncoder(sizes)
        self.text_encoder = _TextEncoder(sizes)


class _Head(nn.Module):
    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
            layers.append(nn.Linear(n_in, n_out))
            if i < len(widths) - 3:
                # The original has dropout here and none before its last layer; the
                # slots keep the numbering of its keys (0, 2, 4, 6, 7).
                layers.append(nn.Identity())
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        return cast(Tensor, self.layers(features))


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """Multi-head attention of (n, tokens, width) tensors, heads of _HEAD_WIDTH."""
    n_heads = max(1, query.shape[-1] // _HEAD_WIDTH)
    asked, offered, given = (
        part.reshape(*part.shape[:2], n_heads, -1).transpose(1, 2)
        for part in (query, key, value)
    )
    scores = asked @ offered.transpose(-1, -2) / math.sqrt(asked.shape[-1])
    if bias is not None:
        scores = scores + bias
    return (scores.softmax(dim=-1) @ given).transpose(1, 2).flatten(2)


class _VisionAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = self.qkv(tokens).chunk(3, dim=-1)
        return cast(Tensor, self.proj(_attend(query, key, value, None)))


class _VisionMlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return cast(Tensor, self.fc2(functional.gelu(self.fc1(tokens))))


class _VisionBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = _VisionAttention(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = _VisionMlp(width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + cast(Tensor, self.attn(self.norm1(tokens)))
        return tokens + cast(Tensor, self.mlp(self.norm2(tokens)))


class _PatchEmbed(nn.Module):
    def __init__(self, width: int, side_px: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, side_px, stride=side_px)


class _VisionEncoder(nn.Module):
    def __init__(self, sizes: NetSizes) -> None:
        super().__init__()
        width, side = sizes.vision_width, sizes.patch_px
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        n_patches = (sizes.image_px // side) ** 2
        self.pos_embed = nn.Parameter(torch.zeros(1, n_patches + 1, width))
        self.patch_embed = _PatchEmbed(width, side)
        blocks = [_VisionBlock(width) for _ in range(sizes.vision_depth)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, pictures: Tensor) -> Tensor:
        patches = self.patch_embed.proj(pictures).flatten(2).transpose(1, 2)
        first = self.cls_token.expand(len(patches), -1, -1)
        tokens = torch.cat([first, patches], dim=1) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        return cast(Tensor, self.norm(tokens))


class _TextSelf(nn.Module):
    def __init__(self, width: int, source_width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source_width, width)
        self.value = nn.Linear(source_width, width)


class _TextOutput(nn.Module):
    def __init__(self, n_in: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(n_in, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, update: Tensor, tokens: Tensor) -> Tensor:
        return cast(Tensor, self.LayerNorm(self.dense(update) + tokens))


class _TextAttention(nn.Module):
    def __init__(self, width: int, source_width: int) -> None:
        super().__init__()
        self.self = _TextSelf(width, source_width)
        self.output = _TextOutput(width, width)

    def forward(self, tokens: Tensor, source: Tensor, bias: Tensor | None) -> Tensor:
        inner = self.self
        mixed = _attend(
            inner.query(tokens), inner.key(source), inner.value(source), bias
        )
        return cast(Tensor, self.output(mixed, tokens))


class _TextInner(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, hidden)


class _TextLayer(nn.Module):
    def __init__(self, sizes: NetSizes) -> None:
        super().__init__()
        width = sizes.text_width
        self.attention = _TextAttention(width, width)
        self.crossattention = _TextAttention(width, sizes.vision_width)
        self.intermediate = _TextInner(width, sizes.text_hidden)
        self.output = _TextOutput(sizes.text_hidden, width)

    def forward(self, tokens: Tensor, bias: Tensor, seen: Tensor) -> Tensor:
        tokens = self.attention(tokens, tokens, bias)
        tokens = self.crossattention(tokens, seen, None)
        inner = functional.gelu(self.intermediate.dense(tokens))
        return cast(Tensor, self.output(inner, tokens))


class _TextLayers(nn.Module):
    def __init__(self, sizes: NetSizes) -> None:
        super().__init__()
        layers = [_TextLayer(sizes) for _ in range(sizes.text_depth)]
        self.layer = nn.ModuleList(layers)


class _TextEmbeddings(nn.Module):
    def __init__(self, sizes: NetSizes) -> None:
        super().__init__()
        width = sizes.text_width
        self.word_embeddings = nn.Embedding(sizes.n_words, width)
        self.position_embeddings = nn.Embedding(sizes.n_positions, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)


class _TextEncoder(nn.Module):
    def __init__(self, sizes: NetSizes) -> None:
        super().__init__()
        self.embeddings = _TextEmbeddings(sizes)
        self.encoder = _TextLayers(sizes)

    def forward(self, ids: Tensor, attends: Tensor, seen: Tensor) -> Tensor:
        parts = self.embeddings
        places = torch.arange(ids.shape[1], device=ids.device)
        words = parts.word_embeddings(ids) + parts.position_embeddings(places)
        tokens: Tensor = parts.LayerNorm(words)
        bias = (1.0 - attends[:, None, None, :].to(tokens.dtype)) * -10000.0
        for layer in self.encoder.layer:
            tokens = layer(tokens, bias, seen)
        return tokens


def sizes_of(state: Mapping[str, Tensor], *, where: str) -> NetSizes:
    """Read every size from the shapes of the weights.

    Args:
        state: Weights by name.
        where: The file, for the message.

    Raises:
        ScorerError: Weights of an ImageReward network are missing.
    """
    try:
        patch = state["blip.visual_encoder.patch_embed.proj.weight"].shape
        places = state["blip.visual_encoder.pos_embed"].shape[1]
        text = "blip.text_encoder."
        words = state[f"{text}embeddings.word_embeddings.weight"].shape
        hidden = state[f"{text}encoder.layer.0.intermediate.dense.weight"].shape[0]
        positions = state[f"{text}embeddings.position_embeddings.weight"].shape[0]
        linears = [
            state[f"mlp.layers.{i}.weight"] for i in _numbers(state, "mlp.layers")
        ]
        return NetSizes(
            image_px=math.isqrt(places - 1) * patch[-1],
            patch_px=patch[-1],
            vision_width=patch[0],
            vision_depth=len(_numbers(state, "blip.visual_encoder.blocks")),
            text_width=words[1],
            text_depth=len(_numbers(state, "blip.text_encoder.encoder.layer")),
            text_hidden=hidden,
            n_words=words[0],
            n_positions=positions,
            head=(words[1], *(linear.shape[0] for linear in linears)),
        )
    except (KeyError, IndexError) as error:
        raise ScorerError(
            f"{where} holds no ImageReward network: {error} is missing or has the "
            "wrong rank. Choose ImageReward.pt or a file of the same layout."
        ) from error


def _numbers(state: Mapping[str, Tensor], prefix: str) -> list[int]:
    """The distinct numbers that follow a prefix, sorted."""
    pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.")
    return sorted({int(m[1]) for key in state if (m := pattern.match(key))})


def build_network(state: Mapping[str, Tensor], *, where: str) -> ImageRewardNet:
    """The network that these weights belong to, in float32, ready to score.

    Args:
        state: Weights by name, of any floating type.
        where: The file, for messages.

    Raises:
        ScorerError: Weights are missing, left over or of a wrong shape.
    """
    net = ImageRewardNet(sizes_of(state, where=where))
    used = {k: v.float() for k, v in state.items() if not _UNUSED.search(k)}
    try:
        net.load_state_dict(used, strict=True)
    except RuntimeError as error:
        raise ScorerError(
            f"{where} does not fit the ImageReward network that its sizes describe: "
            f"{error}. The file may be damaged; download it again."
        ) from error
    return net.eval().requires_grad_(False)
