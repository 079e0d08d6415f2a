"""Changes of every kind against plain formulas, LyCORIS and PEFT."""

from __future__ import annotations

import pytest
import torch

from lib_merge.checkpoint.reader import CheckpointReader
from lib_merge.lora.change import change_from_base, change_of
from lib_merge.lora.file import read_lora
from lib_merge.lora.fitted import read_factors
from tests.lora import makers

LINEAR = (16, 12)
CONV = (16, 6, 3, 3)
CASES = [
    *((kind, LINEAR, makers.TO_Q) for kind in makers.LINEAR_KINDS),
    *((kind, CONV, makers.CONV) for kind in makers.CONV_KINDS),
]
IDS = [f"{kind}-{'conv' if len(shape) > 2 else 'linear'}" for kind, shape, _ in CASES]


def computed(path, base, dtype=torch.float64):
    """The change of a file's only module."""
    lora = read_lora(path)
    (module,) = lora.modules
    with CheckpointReader(lora.header) as reader:
        factors = read_factors(module, reader, dtype)
    if module.needs_base:
        matrix = base.to(dtype).reshape(base.shape[0], -1)
        return change_from_base(module, factors, matrix).reshape(base.shape)
    change = change_of(module, factors)
    return change.rows(0, change.n_rows).reshape(base.shape)


@pytest.mark.parametrize(("kind", "shape", "name"), CASES, ids=IDS)
def test_change_equals_the_plain_formula(kind, shape, name, tmp_path):
    tensors = makers.module(kind, name, shape)
    path = makers.save(tmp_path / "a.safetensors", tensors)
    base = makers.draw(50, *shape)
    wanted = makers.change_of(kind, makers.parts_of(tensors, name), base)
    torch.testing.assert_close(computed(path, base), wanted, rtol=1e-9, atol=1e-9)
    assert float(wanted.abs().max()) > 0.01


@pytest.mark.parametrize(("kind", "shape", "name"), CASES, ids=IDS)
def test_change_in_float32_is_exact_to_its_rounding(kind, shape, name, tmp_path):
    tensors = makers.module(kind, name, shape)
    path = makers.save(tmp_path / "a.safetensors", tensors)
    base = makers.draw(50, *shape)
    wanted = makers.change_of(kind, makers.parts_of(tensors, name), base)
    found = computed(path, base, torch.float32)
    torch.testing.assert_close(found.double(), wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("kind", ["lora", "loha", "lokr", "lokr_both", "full"])
def test_some_rows_are_those_of_the_whole(kind, tmp_path):
    path = makers.save(
        tmp_path / "a.safetensors", makers.module(kind, makers.TO_Q, LINEAR)
    )
    lora = read_lora(path)
    with CheckpointReader(lora.header) as reader:
        factors = read_factors(lora.modules[0], reader, torch.float64)
    change = change_of(lora.modules[0], factors)
    whole = change.rows(0, change.n_rows)
    assert whole.shape == (change.n_rows, change.n_columns) == LINEAR
    torch.testing.assert_close(change.rows(5, 11), whole[5:11], rtol=1e-12, atol=0)


def test_missing_alpha_scales_by_one(tmp_path):
    tensors = makers.module("lora", makers.TO_Q, LINEAR)
    del tensors[f"{makers.TO_Q}.alpha"]
    path = makers.save(tmp_path / "a.safetensors", tensors)
    parts = makers.parts_of(tensors, makers.TO_Q)
    wanted = parts["lora_up.weight"].double() @ parts["lora_down.weight"].double()
    torch.testing.assert_close(computed(path, torch.zeros(LINEAR)), wanted)


LYCORIS = {
    "lora": ("locon", "LoConModule"),
    "locon_tucker": ("locon", "LoConModule"),
    "glora": ("glora", "GLoRAModule"),
    "dora": ("locon", "LoConModule"),
    "boft": ("boft", "ButterflyOFTModule"),
}


def _layer(base):
    if base.dim() == 2:
        layer = torch.nn.Linear(base.shape[1], base.shape[0], bias=False)
    else:
        layer = torch.nn.Conv2d(
            base.shape[1], base.shape[0], base.shape[2], padding=1, bias=False
        )
    layer.weight.data.copy_(base)
    return layer.requires_grad_(False)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        *((kind, LINEAR) for kind in LYCORIS if kind != "locon_tucker"),
        *((kind, CONV) for kind in ("lora", "locon_tucker", "dora")),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)}d",
)
def test_change_equals_that_of_a_module_of_lycoris(kind, shape, tmp_path):
    modules = pytest.importorskip("lycoris.modules")
    file, class_name = LYCORIS[kind]
    found = getattr(getattr(modules, file), class_name)
    tensors = makers.module(kind, makers.TO_Q, shape)
    parts = makers.parts_of(tensors, makers.TO_Q)
    base = makers.draw(50, *shape)
    with torch.no_grad():
        theirs = found.make_module_from_state_dict(
            "x", _layer(base), *(parts.get(name) for name in found.weight_list)
        )
        merged = theirs.get_merged_weight()[0]
    path = makers.save(tmp_path / "a.safetensors", tensors)
    mine = computed(path, base, torch.float32)
    torch.testing.assert_close(mine, merged - base, rtol=1e-4, atol=1e-5)


# The modules of LyCORIS 4.1 multiply alpha / rank in twice when they merge a LoHa or a
# LoKr, and once when they run it; its functions, WebUIs and we do it once.


def _loha_of_lycoris(p, shape):
    from lycoris.functional import loha

    hada = [p[f"hada_w{n}_{side}"] for n in (1, 2) for side in ("b", "a")]
    scale = float(p["alpha"]) / p["hada_w1_b"].shape[0]
    return loha.diff_weight(*hada, p.get("hada_t1"), p.get("hada_t2"), gamma=scale)


def _lokr_of_lycoris(p, shape):
    from lycoris.functional import lokr

    names = ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")
    parts = [p.get(f"lokr_{name}") for name in names]
    return lokr.diff_weight(*parts, gamma=float(p["alpha"]))


def _oft_of_lycoris(p, base):
    from lycoris.functional import diag_oft

    limit = float(p["alpha"]) * base.shape[0]
    return diag_oft.diff_weight(base, p["oft_blocks"], p["rescale"], constraint=limit)


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [
        ("loha", _loha_of_lycoris),
        ("loha_tucker", _loha_of_lycoris),
        ("lokr", _lokr_of_lycoris),
        ("lokr_full", _lokr_of_lycoris),
        ("oft", _oft_of_lycoris),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_change_equals_that_of_a_function_of_lycoris(kind, theirs, tmp_path):
    pytest.importorskip("lycoris")
    shape = CONV if "tucker" in kind else LINEAR
    tensors = makers.module(kind, makers.TO_Q, shape)
    base = makers.draw(50, *shape)
    wanted = theirs(makers.parts_of(tensors, makers.TO_Q), base).reshape(shape)
    path = makers.save(tmp_path / "a.safetensors", tensors)
    mine = computed(path, base, torch.float32)
    torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("has_dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("shape", [LINEAR, CONV], ids=["linear", "conv"])
def test_change_equals_that_of_peft(shape, has_dora, tmp_path):
    peft = pytest.importorskip("peft")
    base = makers.draw(50, *shape)
    model = torch.nn.ModuleDict({"to_q": _layer(base)})
    config = peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=["to_q"], use_dora=has_dora
    )
    wrapped = peft.get_peft_model(model, config)
    layer = wrapped.base_model.model["to_q"]
    with torch.no_grad():
        up = layer.lora_B["default"].weight
        up.copy_(makers.draw(3, *up.shape))
        if has_dora:
            magnitude = layer.lora_magnitude_vector["default"].weight
            magnitude.copy_(makers.draw(9, *magnitude.shape).abs() + 0.5)
        wrapped.save_pretrained(str(tmp_path))
        merged = wrapped.merge_and_unload()["to_q"].weight
    mine = computed(tmp_path / "adapter_model.safetensors", base, torch.float32)
    torch.testing.assert_close(mine, merged - base, rtol=1e-5, atol=1e-6)
