"""Loads the image-reward 1.5 package next to today's libraries, for comparison only.

The package of 2023 imports torchvision, timm, fairscale and transformers functions that
are gone. This puts stand-ins for exactly what it uses into sys.modules while it is
imported, skips its parts that score otherwise (CLIP, aesthetics, ReFL), and lets a test
choose tiny sizes; the network's own code runs as published.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn


class _PatchEmbed(nn.Module):
    """timm's, for square pictures."""

    def __init__(self, img_size: int, patch_size: int, in_chans: int, embed_dim: int):
        super().__init__()
        self.num_patches = (img_size // patch_size) ** 2
        self.proj = nn.Conv2d(in_chans, embed_dim, patch_size, stride=patch_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class _Compose:
    """The five torchvision transforms that the package chains, on PIL pictures."""

    def __init__(self, steps: list[Any]) -> None:
        self._steps = steps

    def __call__(self, value: Any) -> Any:
        for step in self._steps:
            value = step(value)
        return value


def _resize(size: int, interpolation: int) -> Any:
    def apply(image: Image.Image) -> Image.Image:
        width, height = image.size
        short, long = min(width, height), max(width, height)
        scaled = int(size * long / short)
        shape = (size, scaled) if width <= height else (scaled, size)
        return image.resize(shape, interpolation)

    return apply


def _centre_crop(size: int) -> Any:
    def apply(image: Image.Image) -> Image.Image:
        width, height = image.size
        top = round((height - size) / 2.0)
        left = round((width - size) / 2.0)
        return image.crop((left, top, left + size, top + size))

    return apply


def _to_tensor() -> Any:
    return lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255.0


def _normalise(mean: tuple[float, ...], sd: tuple[float, ...]) -> Any:
    column = (-1, 1, 1)
    return lambda x: (
        (x - torch.tensor(mean).view(column)) / torch.tensor(sd).view(column)
    )


def _module(name: str, **members: Any) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(members)
    return module


def _stand_ins() -> dict[str, ModuleType]:
    package = importlib.util.find_spec("ImageReward")
    assert package is not None
    assert package.submodule_search_locations is not None
    root = Path(package.submodule_search_locations[0])
    unused: dict[str, Any] = dict.fromkeys(
        ("_cfg", "named_apply", "adapt_input_conv", "download_cached_file"), None
    )
    timm = {
        "timm": {},
        "timm.models": {},
        "timm.models.hub": {"download_cached_file": None},
        "timm.models.vision_transformer": {"_cfg": None, "PatchEmbed": _PatchEmbed},
        "timm.models.registry": {"register_model": None},
        "timm.models.layers": {
            "trunc_normal_": nn.init.trunc_normal_,
            "DropPath": lambda _rate: nn.Identity(),
        },
        "timm.models.helpers": unused,
        "fairscale": {},
        "fairscale.nn": {},
        "fairscale.nn.checkpoint": {},
        "fairscale.nn.checkpoint.checkpoint_activations": {"checkpoint_wrapper": None},
        "torchvision": {},
        "torchvision.transforms": {
            "Compose": _Compose,
            "Resize": _resize,
            "CenterCrop": _centre_crop,
            "ToTensor": _to_tensor,
            "Normalize": _normalise,
        },
        "ImageReward": {"__path__": [str(root)]},
        "ImageReward.models": {"__path__": [str(root / "models")]},
    }
    return {name: _module(name, **members) for name, members in timm.items()}


@contextmanager
def _transformers_of_2023() -> Iterator[None]:
    import transformers
    from transformers import modeling_utils, pytorch_utils

    missing = {
        "apply_chunking_to_forward": pytorch_utils.apply_chunking_to_forward,
        "prune_linear_layer": pytorch_utils.prune_linear_layer,
        "find_pruneable_heads_and_indices": None,
    }
    added = [name for name in missing if not hasattr(modeling_utils, name)]
    verbosity = transformers.logging.get_verbosity()
    for name in added:
        setattr(modeling_utils, name, missing[name])
    try:
        yield
    finally:
        transformers.logging.set_verbosity(verbosity)  # the package silences it
        for name in added:
            delattr(modeling_utils, name)


@contextmanager
def image_reward_package() -> Iterator[ModuleType]:
    """The package's module ImageReward.ImageReward, gone again afterwards."""
    # Asks what is installed while it is imported, so it must not see the stand-ins.
    from transformers import BertConfig, BertTokenizer  # noqa: F401

    before = dict(sys.modules)
    try:
        with _transformers_of_2023():
            sys.modules.update(_stand_ins())
            module = importlib.import_module("ImageReward.ImageReward")
        med = importlib.import_module("ImageReward.models.BLIP.med")
        _give_back_methods(med.BertPreTrainedModel)
        yield module
    finally:
        for name in set(sys.modules) - set(before):
            if name.split(".")[0] in (
                "ImageReward",
                "timm",
                "fairscale",
                "torchvision",
            ):
                del sys.modules[name]


def _give_back_methods(base: Any) -> None:
    """What transformers 5 removed from PreTrainedModel, as transformers 4 had it."""
    if not hasattr(base, "get_head_mask"):
        base.get_head_mask = lambda _self, _mask, n_layers: [None] * n_layers
    if not hasattr(base, "invert_attention_mask"):
        base.invert_attention_mask = lambda self, mask: (
            (1.0 - mask[:, None, None, :].to(self.dtype)) * torch.finfo(self.dtype).min
        )
    base.all_tied_weights_keys = {}


def build_model(
    module: ModuleType,
    *,
    vision: tuple[int, int, int],
    head: tuple[int, ...],
    image_px: int,
    med_config: Path,
    vocabulary: Path,
) -> Any:
    """The package's ImageReward class with small networks, in eval mode.

    Args:
        module: From image_reward_package().
        vision: Width, depth and number of heads of the picture encoder.
        head: Widths of the reward head, input first.
        image_px: Side of the network's picture.
        med_config: BERT's configuration.
        vocabulary: A vocab.txt.
    """
    from transformers import BertTokenizer

    blip = importlib.import_module("ImageReward.models.BLIP.blip")
    pretrain = importlib.import_module("ImageReward.models.BLIP.blip_pretrain")
    width, depth, n_heads = vision

    def create_vit(*_args: object) -> tuple[Any, int]:
        vit = blip.VisionTransformer(
            img_size=image_px,
            patch_size=16,
            embed_dim=width,
            depth=depth,
            num_heads=n_heads,
            qkv_bias=True,
        )
        return vit, width

    pretrain.create_vit = create_vit
    pretrain.init_tokenizer = lambda: BertTokenizer.from_pretrained(vocabulary.parent)
    model = module.ImageReward(med_config=str(med_config), device="cpu")
    model.preprocess = module._transform(image_px)
    dropouts = (0.2, 0.2, 0.1)
    layers: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(itertools.pairwise(head)):
        layers.append(nn.Linear(n_in, n_out))
        layers += [nn.Dropout(rate) for rate in dropouts[i : i + 1]]
    model.mlp.layers = nn.Sequential(*layers)
    return model.eval()
