"""Conversions: rounded once from the stored values; float8 with scales, and back."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from lib_merge.analysis.distances import compare_files
from lib_merge.analysis.health import values
from lib_merge.analysis.health.convert import ConvertOptions, plan_convert
from lib_merge.analysis.health.defects import Defect
from lib_merge.analysis.health.look import inspect_file
from lib_merge.analysis.health.rewrite import write_file
from lib_merge.core.dtypes import DType
from lib_merge.core.recipe import simple_recipe
from lib_merge.engine.save import merge_to_file
from lib_merge.errors import CheckpointError, InputError, NonFiniteError, RecipeError
from lib_merge.lora.extract import Wanted, extract_lora
from lib_merge.lora.factors import Keep
from tests.support.checkpoints import tiny_tensors, write_checkpoint

LINEAR = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q"
CONV = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"
MARKER = "model.diffusion_model.scaled_fp8"


@pytest.fixture
def tensors():
    return tiny_tensors("sd1", 1, dtype=torch.float32)


@pytest.fixture
def model(tmp_path, tensors):
    return write_checkpoint(tmp_path / "a.safetensors", tensors)


def convert(path, name, **options):
    out = path.with_name(f"{path.stem}_{name}.safetensors")
    dtype = DType.from_name(name)
    return write_file(
        plan_convert(path, ConvertOptions(dtype, **options)).job, out
    ).path


@pytest.mark.parametrize("name", ["fp16", "bf16", "fp32"])
def test_weights_are_rounded_once(model, tensors, name, monkeypatch):
    monkeypatch.setattr(values, "CHUNK_ELEMENTS", 1000)
    found = load_file(convert(model, name))
    dtype = getattr(torch, DType.from_name(name).torch_name)
    assert found.keys() == tensors.keys()
    for key, tensor in tensors.items():
        is_weight = tensor.is_floating_point() and "." in key
        assert torch.equal(found[key], tensor.to(dtype) if is_weight else tensor), key


@pytest.mark.parametrize("name", ["fp8", "fp8_e5m2"])
def test_scaled_eight_bits_are_as_near_as_eight_bits_can_be(
    model, tensors, name, monkeypatch
):
    monkeypatch.setattr(values, "CHUNK_ELEMENTS", 100)
    path = convert(model, name)
    found = load_file(path)
    dtype = getattr(torch, DType.from_name(name).torch_name)
    weight, scale = found[f"{LINEAR}.weight"], found[f"{LINEAR}.scale_weight"]
    assert weight.dtype == dtype
    assert scale.dtype == torch.float32
    assert scale.shape == ()
    wanted = tensors[f"{LINEAR}.weight"]
    assert float(scale) == pytest.approx(
        float(wanted.abs().max()) / torch.finfo(dtype).max, rel=1e-6
    )
    assert torch.equal(weight.float(), (wanted / scale).to(dtype).float())
    step = 2.0 ** (-4 if name == "fp8" else -3)
    error = (weight.float() * scale - wanted).abs()
    assert bool((error <= step * wanted.abs() + float(scale) * 0.01).all())
    assert found[MARKER].dtype == dtype
    assert found[CONV].dtype == torch.float16
    first_stage = [t for k, t in found.items() if k.startswith("first_stage_model.")]
    assert {tensor.dtype for tensor in first_stage} == {torch.float16}
    assert len(inspect_file(path).contents.findings[0].keys) > 0


def test_scales_are_multiplied_out_on_the_way_back(model, tensors):
    narrow = convert(model, "fp8")
    eight, back = load_file(narrow), load_file(convert(narrow, "fp32"))
    assert back.keys() == tensors.keys()
    key = f"{LINEAR}.weight"
    wanted = eight[key].float() * eight[f"{LINEAR}.scale_weight"]
    assert torch.equal(back[key], wanted)


def test_later_spelling_of_scales_is_read_too(model, tmp_path):
    eight = load_file(convert(model, "fp8"))
    renamed = {
        key.replace(".scale_weight", ".weight_scale"): tensor
        for key, tensor in eight.items()
        if key != MARKER
    }
    path = write_checkpoint(tmp_path / "later.safetensors", renamed)
    defects = {f.defect for f in inspect_file(path).contents.findings}
    assert Defect.SCALED in defects
    assert not any(d.is_problem for d in defects)
    back = load_file(convert(path, "fp32"))
    key = f"{LINEAR}.weight"
    assert torch.equal(back[key], eight[key].float() * eight[f"{LINEAR}.scale_weight"])


def test_scaled_weights_are_no_input_before_they_are_multiplied_out(model, tmp_path):
    """They would be merged, compared and subtracted as if there were no scales."""
    narrow, other = (
        convert(model, "fp8"),
        write_checkpoint(tmp_path / "other.safetensors", tiny_tensors("sd1", 5)),
    )
    says = r"holds \d+ weights in eight bits with scales .* convert FILE NEW --to fp16"
    for pair in ((narrow, other), (other, narrow)):
        recipe = simple_recipe("weighted_sum", tuple(map(str, pair)))
        with pytest.raises(RecipeError, match=says):
            merge_to_file(recipe, tmp_path / "out.safetensors")
        with pytest.raises(CheckpointError, match=says):
            compare_files(pair)
        with pytest.raises(CheckpointError, match=says):
            extract_lora(*pair, tmp_path / "lora.safetensors", Wanted(Keep(rank=2)))
    recipe = simple_recipe("weighted_sum", (str(convert(narrow, "fp16")), str(other)))
    assert merge_to_file(recipe, tmp_path / "out.safetensors").path.is_file()


def test_unscaled_eight_bits_have_no_scale(model):
    found = load_file(convert(model, "fp8_e5m2", is_scaled=False))
    assert found[f"{LINEAR}.weight"].dtype == torch.float8_e5m2
    assert not any(key.endswith("scale_weight") for key in found)
    assert MARKER not in found


def test_scale_is_one_when_a_matrix_is_all_zero(tmp_path, tensors):
    tensors[f"{LINEAR}.weight"].zero_()
    path = write_checkpoint(tmp_path / "z.safetensors", tensors)
    found = load_file(convert(path, "fp8"))
    assert float(found[f"{LINEAR}.scale_weight"]) == 1


def test_value_too_large_for_float16_is_refused(tmp_path, tensors):
    tensors[CONV].fill_(1e6)
    path = write_checkpoint(tmp_path / "big.safetensors", tensors)
    with pytest.raises(NonFiniteError, match="too large for float16; use bfloat16"):
        convert(path, "fp16")
    assert torch.equal(load_file(convert(path, "bf16"))[CONV], tensors[CONV].bfloat16())


def test_nan_stays_when_weights_are_converted(tmp_path, tensors):
    tensors[CONV].fill_(float("nan"))
    path = write_checkpoint(tmp_path / "n.safetensors", tensors)
    assert bool(load_file(convert(path, "fp16"))[CONV].isnan().all())


def test_ema_is_left_out_unless_it_is_kept(tmp_path):
    path = write_checkpoint(
        tmp_path / "e.safetensors", tiny_tensors("sd1", 1, with_ema=True)
    )
    assert len(load_file(convert(path, "bf16"))) == 1143
    assert len(load_file(convert(path, "fp32", keep_ema=True))) == 1831


def test_lora_is_converted_to_other_widths_but_not_to_eight_bits(tmp_path):
    key = "lora_unet_x.lora_up.weight"
    path = write_checkpoint(tmp_path / "l.safetensors", {key: torch.randn(4, 4)})
    assert load_file(convert(path, "fp16"))[key].dtype == torch.float16
    with pytest.raises(InputError, match="only a model of a known architecture"):
        convert(path, "fp8")


def test_integers_are_nothing_to_convert_to(model):
    with pytest.raises(InputError, match="nothing to convert to"):
        plan_convert(model, ConvertOptions(DType.I64))
