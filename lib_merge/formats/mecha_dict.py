"""Weights by block or layer of .mecha recipes (`dict`), as settings.

Every dialect names keys in its own way, and a key that several entries fit gets the
mean of their values there. Sources: sd_mecha/hypers at 60d0764 for (a), hypers.py and
models/*.yaml at feefbf4 for (b), convert_sd*_blocks.py of 1.1.8 for (c).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from lib_merge.core.blocks import BlockId
from lib_merge.core.recipe import Rule, Setting
from lib_merge.errors import RecipeError

_UNET = "model.diffusion_model."
_L = {
    True: "conditioner.embedders.0.transformer.text_model.",
    False: "cond_stage_model.transformer.text_model.",
}
_G = "conditioner.embedders.1.model."

_CLASSES_L = {
    "pos_embed": ".embeddings.position_embedding.",
    "token_embed": ".embeddings.token_embedding.",
    "final_norm": ".final_layer_norm.",
    "layer_norm1": ".layer_norm1.",
    "layer_norm2": ".layer_norm2.",
    "mlp_fc1": ".mlp.fc1.",
    "mlp_fc2": ".mlp.fc2.",
    "q": ".self_attn.q_proj.",
    "k": ".self_attn.k_proj.",
    "v": ".self_attn.v_proj.",
    "out": ".self_attn.out_proj.",
}
_CLASSES_G = {
    "ln_final": "1.model.ln_final.",
    "logit_scale": "1.model.logit_scale.",
    "positional_embedding": "1.model.positional_embedding.",
    "text_projection": "1.model.text_projection.",
    "token_embedding": "1.model.token_embedding.",
    "attn_in_proj": "attn.in_proj_",
    "attn_out_proj": "attn.out_proj.",
    "ln_1": "ln_1.",
    "ln_2": "ln_2.",
    "mlp_c_fc": "mlp.c_fc.",
    "mlp_c_proj": "mlp.c_proj.",
}
_CLASSES_UNET = {
    "in0": f"{_UNET}input_blocks.0.0.",
    "op": ".op.",
    "proj_in": ".proj_in.",
    "proj_out": ".proj_out.",
    **{f"trans_attn{i}_{p}": f".attn{i}.to_{p}." for i in (1, 2) for p in "qkv"},
    **{f"trans_attn{i}_out": f".attn{i}.to_out." for i in (1, 2)},
    **{f"trans_norm{i}": f".norm{i}." for i in (1, 2, 3)},
    "trans_ff_net0_proj": ".ff.net.0.proj.",
    "trans_ff_net2": ".ff.net.2.",
    "emb_layers1": ".emb_layers.1.",
    "in_layers0": ".in_layers.0.",
    "in_layers2": ".in_layers.2.",
    "out_layers0": ".out_layers.0.",
    "out_layers3": ".out_layers.3.",
    "norm": ".norm.",
    "skip_connection": ".skip_connection.",
    "conv": ".conv.",
    "out0": ".out.0.",
    "out2": ".out.2.",
}


@dataclass(frozen=True)
class _Place:
    """The keys that an entry speaks of.

    Attributes:
        blocks: They lie in one of these, or anywhere.
        pattern: And their names hold this regular expression.
    """

    blocks: tuple[BlockId, ...] = ()
    pattern: str = ""


def setting_of(
    values: Mapping[str, float], dialect: str, arch: str, where: str
) -> Setting:
    """The setting that a dict stands for.

    Args:
        values: As the line has them.
        dialect: a, b or c.
        arch: What the recipe's models say of theirs, or "".
        where: For messages.

    Raises:
        RecipeError: A key that the dialect does not have.
    """
    if dialect == "a":
        return _setting_a(values, where)
    if dialect == "b":
        return _setting_b(values, arch, where)
    return _setting_c(values, arch, where)


# (a)


def _setting_a(values: Mapping[str, float], where: str) -> Setting:
    is_sdxl = any(key.startswith(("g14_txt_", "sdxl_unet_")) for key in values)
    default = 0.0
    blocks: list[tuple[_Place, float]] = []
    classes: list[tuple[_Place, float]] = []
    for key, value in values.items():
        if key.endswith("_default"):
            # Whichever comes last is the default of every key that nothing fits.
            default = value
    rules: list[Rule] = []
    for family, known, whole in _families_a(is_sdxl):
        given = {
            key[len(family) :]: value
            for key, value in values.items()
            if key.startswith(family) and not key.endswith("_default")
        }
        found = {k[6:]: v for k, v in given.items() if k.startswith("class_")}
        if len(found) == len(given) and set(found) == set(known):
            value, *other = set(found.values())
            if not other:
                if value != default:
                    blocks.append((_Place(whole), value))
                    rules += _missed_a(whole, default)
                continue
        classes += [
            (_Place(whole, re.escape(known[k])), v)
            for k, v in found.items()
            if k in known
        ]
        blocks += [
            (_block_a(family, k[6:], is_sdxl), v)
            for k, v in given.items()
            if k.startswith("block_")
        ]
    unknown = [key for key in values if not _is_known_a(key, is_sdxl)]
    if unknown:
        raise RecipeError(
            [f"{where}: '{unknown[0][:60]}' is no name of a block or layer."]
        )
    setting = _layered(default, blocks, classes)
    return Setting(setting.value, setting.blocks, (*setting.rules, *rules))


def _missed_a(whole: tuple[BlockId, ...], default: float) -> list[Rule]:
    """CLIP-G tensors whose names the dialect writes with a dot that they lack."""
    if whole != ("CLIP_G",):
        return []
    missed = r"1\.model\.(?:positional_embedding|text_projection|logit_scale)$"
    return [Rule(default, whole, missed)]


_Family: TypeAlias = "tuple[str, dict[str, str], tuple[BlockId, ...]]"


def _families_a(is_sdxl: bool) -> list[_Family]:
    found: list[_Family] = [("l14_txt_", _CLASSES_L, (BlockId("CLIP_L"),))]
    if is_sdxl:
        found.append(("g14_txt_", _CLASSES_G, (BlockId("CLIP_G"),)))
    name = "sdxl_unet_" if is_sdxl else "sd15_unet_"
    found.append((name, _CLASSES_UNET, (BlockId("UNET"),)))
    return found


def _is_known_a(key: str, is_sdxl: bool) -> bool:
    if key.endswith("_default"):
        return True
    for family, known, _ in _families_a(is_sdxl):
        rest = key[len(family) :]
        if key.startswith(family):
            is_block = re.fullmatch(r"block_[a-z_]+\d*", rest) is not None
            return is_block or rest.removeprefix("class_") in known
    return False


def _block_a(family: str, name: str, is_sdxl: bool) -> _Place:
    if family.endswith("unet_"):
        number = re.fullmatch(r"(in|out)(\d\d)", name)
        if number:
            return _Place((BlockId(f"{number[1].upper()}{number[2]}"),))
        named = {"mid00": "M00", "out": "OUT"}
        return _Place((BlockId(named.get(name, name)),))
    prefix = _L[is_sdxl] if family == "l14_txt_" else _G
    layer = re.fullmatch(r"in(\d\d)", name)
    if layer:
        stem = "encoder.layers." if family == "l14_txt_" else "transformer.resblocks."
        # Without a dot behind it the name of layer 1 is the start of layer 10's, too.
        return _Place((), "^" + re.escape(f"{prefix}{stem}{int(layer[1])}"))
    parts = {
        "embed": "embeddings.",
        "final": "final_layer_norm.",
        "ln_final": "ln_final.",
        "logit_scale": "logit_scale.",
        "pos_embed": "positional_embedding.",
        "token_embed": "token_embedding.",
        "text_proj": "text_projection.",
    }
    return _Place((), "^" + re.escape(prefix + parts.get(name, name)))


# (b)


_LOOSE_B = {"in0": ("encoder.layers.0", "embeddings"), "in11": ("encoder.layers.11",)}


def _setting_b(values: Mapping[str, float], arch: str, where: str) -> Setting:
    is_sdxl = arch.startswith("sdxl")
    defaults: dict[str, float] = {}
    blocks: list[tuple[_Place, float]] = []
    classes: list[tuple[_Place, float]] = []
    unet: dict[str, float] = {}
    for key, value in values.items():
        match = re.fullmatch(
            r"(?:sd1|sdxl)_(unet|txt|txt2)_(default|block_|class_)([a-z0-9_]*)", key
        )
        if match is None:
            raise RecipeError(
                [f"{where}: '{key[:60]}' is no name of a block or layer."]
            )
        component, kind, name = match.groups()
        if kind == "default":
            defaults[component] = value
        elif kind == "class_":
            # A class is the rest of a key's name behind its block, with _ for the dots.
            inside = re.escape(name).replace("_", "[._]")
            place = _Place(_whole_b(component), rf"\.{inside}(?:\.(?:weight|bias))?$")
            classes.append((place, value))
        elif component == "unet":
            unet[name] = value
        else:
            blocks.append((_block_b(component, name, is_sdxl), value))
    for component, value in defaults.items():
        blocks.insert(0, (_Place(_whole_b(component)), value))
    blocks += _unet_b(unet, is_sdxl=is_sdxl)
    if is_sdxl:
        # The dialect has no block for it, so that no value reaches it.
        blocks.append((_Place((BlockId("LABEL_EMB"),)), 0.0))
    return _layered(0.0, blocks, classes)


def _whole_b(component: str) -> tuple[BlockId, ...]:
    return (BlockId({"unet": "UNET", "txt": "CLIP_L", "txt2": "CLIP_G"}[component]),)


def _unet_b(
    values: Mapping[str, float], *, is_sdxl: bool
) -> list[tuple[_Place, float]]:
    """UNet blocks; time_embed gets the mean of those that it is listed under."""
    found: list[tuple[_Place, float]] = []
    last = "out8" if is_sdxl else "out11"
    # By its list, every block but these holds time_embed, too.
    without = ("in0", "in3", "in6") if is_sdxl else ("in0", "in3", "in6", "in9")
    for name, value in values.items():
        number = re.fullmatch(r"(in|out)(\d+)", name)
        block = f"{number[1].upper()}{int(number[2]):02d}" if number else "M00"
        found.append((_Place((BlockId(block),)), value))
        if name == last:
            found.append((_Place((BlockId("OUT"),)), value))
    timed = [value for name, value in values.items() if name not in without]
    if timed:
        mean = sum(timed) / len(timed)
        found.append((_Place((BlockId("TIME_EMBED"),)), mean))
    return found


def _block_b(component: str, name: str, is_sdxl: bool) -> _Place:
    number = name.removeprefix("in")
    if component == "txt2":
        prefix, stem, last = _G, f"transformer.resblocks.{number}", "31"
        first = "positional_embedding|text_projection|token_embedding"
        end = "ln_final|logit_scale"
    else:
        prefix, stem, last = _L[is_sdxl], f"encoder.layers.{number}", "11"
        first, end = "embeddings", "final_layer_norm"
    parts = re.escape(stem)
    if number == "0":
        parts += f"|{first}"
    elif number == last:
        parts += f"|{end}"
    return _Place((), rf"^{re.escape(prefix)}(?:{parts})(?:\.|$)")


# (c)


def _setting_c(values: Mapping[str, float], arch: str, where: str) -> Setting:
    is_sdxl = arch.startswith("sdxl")
    last = "OUT08" if is_sdxl else "OUT11"
    pairs: list[tuple[BlockId, float]] = []
    for key, value in values.items():
        if not re.fullmatch(r"BASE|VAE|M00|(?:IN|OUT)\d\d", key):
            raise RecipeError(
                [
                    f"{where}: '{key[:60]}' is no block of supermerger_blocks; weights "
                    "for single tensors are not read."
                ]
            )
        also = {
            "BASE": ("TIME_EMBED", *(("LABEL_EMB",) if is_sdxl else ("VAE",))),
            last: ("OUT",),
        }
        pairs += [(BlockId(block), value) for block in (key, *also.get(key, ()))]
    return Setting(0.0, tuple(pairs))


# Settings


def _layered(
    default: float,
    blocks: Sequence[tuple[_Place, float]],
    classes: Sequence[tuple[_Place, float]],
) -> Setting:
    """A setting in which keys that a block and a class fit get their mean.

    Args:
        default: Of keys that nothing fits.
        blocks: Each key in at most one, but for patterns that begin alike.
        classes: Each key in at most one.
    """
    named: dict[BlockId, float] = {}
    rules: list[Rule] = []
    for place, value in blocks:
        if place.pattern:
            continue
        named.update(dict.fromkeys(place.blocks, value))
    starts = [(p.pattern, v) for p, v in blocks if p.pattern]
    shared = [
        (pattern, [v for other, v in starts if pattern.startswith(other)])
        for pattern, _ in sorted(starts, key=lambda one: len(one[0]))
    ]
    rules += [Rule(sum(vs) / len(vs), (), pattern) for pattern, vs in shared]
    rules += [Rule(value, place.blocks, place.pattern) for place, value in classes]
    for place, value in classes:
        for block, own in named.items():
            if place.blocks == ("UNET",) and block not in _WHOLES:
                mean = (own + value) / 2.0
                rules.append(Rule(mean, (block,), place.pattern))
        for pattern, vs in shared:
            mean = (sum(vs) + value) / (len(vs) + 1)
            both = f"(?={pattern})(?=.*(?:{place.pattern}))"
            rules.append(Rule(mean, (), both))
    return Setting(default, tuple(named.items()), tuple(rules))


_WHOLES = ("UNET", "CLIP_L", "CLIP_G")
