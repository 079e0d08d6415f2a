"""Every key of the three layouts has exactly one role: the committed golden lists."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from lib_merge.arch import architectures, claims, detect_architecture
from lib_merge.arch._ldm import MARKER_KEYS
from lib_merge.core.blocks import BlockId, Component, TensorInfo, Treatment
from lib_merge.core.dtypes import DType
from lib_merge.errors import CheckpointError
from tests.support.checkpoints import golden_rows, golden_shape
from tests.support.golden_lists import COMPACT

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "layouts"
ARCH_IDS = ("sd1", "sd2", "sdxl")
ALL_IDS = (*ARCH_IDS, *COMPACT)


def rows(arch_id: str) -> tuple[dict[str, str], ...]:
    return golden_rows(arch_id)


def infos(arch_id: str) -> dict[str, TensorInfo]:
    return {
        row["key"]: TensorInfo(DType.from_code(row["dtype"]), golden_shape(row))
        for row in rows(arch_id)
    }


@pytest.mark.parametrize("arch_id", ALL_IDS)
def test_role_of_every_key_is_the_golden_one(arch_id: str) -> None:
    architecture = architectures().get(arch_id)
    found = []
    for row in rows(arch_id):
        role = architecture.role_of(row["key"])
        assert role is not None, row["key"]
        found.append((row["key"], role.block, role.component.value, role.treatment))
    wanted = [
        (r["key"], r["block"], r["component"], Treatment(r["treatment"]))
        for r in rows(arch_id)
    ]
    assert found == wanted


@pytest.mark.parametrize("arch_id", ALL_IDS)
def test_detection_finds_it_and_no_other(arch_id: str) -> None:
    keys = infos(arch_id)
    assert detect_architecture(keys, where="x.safetensors").id == arch_id
    assert claims(keys) == (arch_id,)


@pytest.mark.parametrize("arch_id", ARCH_IDS)
def test_detection_needs_no_text_encoder(arch_id: str) -> None:
    keys = {
        key: info
        for key, info in infos(arch_id).items()
        if not key.startswith(("cond_stage_model.", "conditioner."))
    }
    assert detect_architecture(keys, where="x.safetensors").id == arch_id


def test_detection_names_the_file_when_nothing_fits() -> None:
    keys = {"some.weight": TensorInfo(DType.F16, (4, 4))}
    with pytest.raises(CheckpointError, match=r"odd\.safetensors.*some\.weight"):
        detect_architecture(keys, where="odd.safetensors")


@pytest.mark.parametrize(
    ("arch_id", "n_unet", "n_weighted"),
    [
        ("sd1", 27, 28),
        ("sd2", 27, 28),
        ("sdxl", 22, 24),
        ("sd3_medium", 24 + 6, 33),
        ("sd35_medium", 24 + 6, 33),
        ("sd35_large", 38 + 6, 47),
        ("flux", 19 + 38 + 6, 65),
        ("auraflow", 4 + 32 + 6, 43),
        ("hunyuan_dit", 40 + 7, 49),
        ("pixart", 28 + 5, 34),
        ("sdxl_refiner", 28, 29),
    ],
    ids=ALL_IDS,
)
def test_every_weighted_block_holds_keys(
    arch_id: str, n_unet: int, n_weighted: int
) -> None:
    architecture = architectures().get(arch_id)
    weighted = architecture.weighted_blocks()
    unet = [b for b in weighted if b.component is Component.UNET]
    assert (len(unet), len(weighted)) == (n_unet, n_weighted)
    used = Counter(row["block"] for row in rows(arch_id))
    assert [block.id for block in weighted if not used[block.id]] == []


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("IN04", ("IN04",)),
        ("in04-in06", ("IN04", "IN05", "IN06")),
        ("BASE", ("CLIP_L",)),
        ("MID00", ("M00",)),
        ("M00-OUT01", ("M00", "OUT00", "OUT01")),
        ("OUT01-M00", ()),
        ("IN12", ()),
        ("", ()),
    ],
    ids=lambda value: str(value),
)
def test_expand_reads_ids_aliases_and_ranges(
    name: str, wanted: tuple[str, ...]
) -> None:
    assert architectures().get("sd1").expand(name) == wanted


def test_base_means_both_text_encoders_on_sdxl() -> None:
    assert architectures().get("sdxl").expand("BASE") == ("CLIP_L", "CLIP_G")


@pytest.mark.parametrize(
    ("arch_id", "key", "block"),
    [
        ("sd1", "model_ema.diffusion_modelinput_blocks110in_layers0weight", "IN11"),
        ("sd1", "model_ema.diffusion_modelinput_blocks10in_layers0weight", "IN01"),
        ("sd1", "model_ema.diffusion_modeltime_embed0weight", "TIME_EMBED"),
        ("sd1", "model_ema.diffusion_modelout2bias", "OUT"),
    ],
    ids=["IN11", "IN01", "TIME_EMBED", "OUT"],
)
def test_ema_key_belongs_to_the_block_it_shadows(
    arch_id: str, key: str, block: str
) -> None:
    role = architectures().get(arch_id).role_of(key)
    assert role is not None
    assert role.block == BlockId(block)
    assert role.treatment is Treatment.DROP_UNLESS_ASKED


@pytest.mark.parametrize(
    "key",
    [
        "model.diffusion_model.input_blocks.12.0.weight",
        "control_model.input_blocks.0.0.weight",
        "lora_unet_down_blocks_0.alpha",
    ],
)
def test_unknown_key_has_no_role(key: str) -> None:
    assert architectures().get("sd1").role_of(key) is None


PART = {
    "diffuser": Component.UNET,
    "vae": Component.VAE,
    "clip_l": Component.CLIP_L,
    "clip_g": Component.CLIP_G,
    "clip_h": Component.CLIP_H,
    "scheduler": Component.SCHEDULE,
}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the whole layouts are not here")
@pytest.mark.parametrize("arch_id", ARCH_IDS)
def test_component_of_every_key_agrees_with_the_whole_layout(arch_id: str) -> None:
    layout = json.loads((SHARED / f"{arch_id}.json").read_text(encoding="utf-8"))
    architecture = architectures().get(arch_id)
    wrong = []
    for part, keys in layout.items():
        for key in keys:
            role = architecture.role_of(key)
            if key in MARKER_KEYS:
                # Loose flags that the layout lists with the UNet; we copy them.
                assert role is not None
                assert role.treatment is Treatment.COPY
            elif part == "ema":
                assert role is not None
                assert role.treatment is Treatment.DROP_UNLESS_ASKED
            elif role is None or role.component is not PART[part]:
                wrong.append((part, key, role))
    assert wrong == []
