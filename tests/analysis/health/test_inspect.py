"""Inspections: what a file is, what it lacks, what is too much, whose parts it has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lib_merge.analysis.health.deep import (
    read_deep,
    recall,
    shared_components,
    with_namesakes,
)
from lib_merge.analysis.health.defects import Defect
from lib_merge.analysis.health.expected import expected_layout
from lib_merge.analysis.health.look import (
    find_checkpoints,
    inspect_file,
    inspect_files,
)
from lib_merge.errors import Cancelled, InputError
from tests.analysis.health.conftest import (
    CLIP_G,
    DEAD_KEY,
    FLAT_KEY,
    IDS,
    LOST_KEY,
    NAN_KEY,
)
from tests.support.checkpoints import (
    golden_rows,
    golden_shape,
    tiny_tensors,
    write_checkpoint,
    write_tiny,
)
from tests.support.compact_layouts import TABLES, table_of

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "layouts"
TABLED = sorted(path.stem for path in TABLES.glob("*.tsv"))


def findings(inspection):
    return {f.defect: f for f in inspection.contents.findings}


def deep(path):
    return read_deep(inspect_files([path]))[0]


@pytest.mark.parametrize("arch_id", TABLED)
def test_layout_table_holds_every_golden_key(arch_id):
    wanted = {
        row["key"]: golden_shape(row)
        for row in golden_rows(arch_id)
        if row["treatment"] != "ema"
    }
    found = expected_layout(arch_id)
    assert {key: entry.info.shape for key, entry in found.items()} == wanted
    written = (TABLES / f"{arch_id}.tsv").read_text(encoding="utf-8")
    assert written == table_of(arch_id)


@pytest.mark.parametrize("arch_id", TABLED)
def test_layout_table_asks_for_no_more_than_real_models_have(arch_id):
    file = SHARED / f"{'flux_dev' if arch_id == 'flux' else arch_id}.json"
    if not file.is_file():
        pytest.skip("the real layouts are not here")
    required = {key for key, e in expected_layout(arch_id).items() if e.is_required}
    real = {
        key: need
        for component in json.loads(file.read_text()).values()
        for key, (_, _, need) in component.items()
    }
    doubtful = {key for key in required if real.get(key) != "required"}
    # Mergers let these be absent, but without them there is no pooled text.
    pooled = ("text_projection", "ln_final.", "transformer.resblocks.31.")
    prefix = "conditioner.embedders.1.model."
    assert {k for k in doubtful if not k.removeprefix(prefix).startswith(pooled)} == (
        set()
    )


@pytest.mark.parametrize("arch_id", ["sd1", "sd2", "sdxl"])
def test_whole_file_has_no_problem_when_it_is_tiny(tmp_path, arch_id):
    found = deep(write_tiny(tmp_path / "a.safetensors", arch_id, 3))
    assert found.all_problems() == ()
    assert found.contents.arch_id == arch_id
    assert found.precision == "float16"
    assert all(part.n_missing == 0 for part in found.contents.parts)


def test_every_defect_is_found_in_a_damaged_file(damaged):
    found = findings(deep(damaged))
    counts = {defect: len(finding.keys) for defect, finding in found.items()}
    assert counts.pop(Defect.SCHEDULE) == 12
    counts.pop(Defect.CONSTANT)
    assert counts == {
        Defect.DENOISER: 1,
        Defect.TEXT_EXTRA: 3,
        Defect.NESTED_IDS: 1,
        Defect.LORA: 2,
        Defect.EMA: 1,
        Defect.TRAINING: 1,
        Defect.MISSING: 2,
        Defect.MISSHAPEN: 1,
        Defect.POSITION_IDS: 1,
        Defect.NON_FINITE: 1,
        Defect.DEAD: 1,
    }
    assert set(found[Defect.MISSING].keys) == {LOST_KEY, f"{CLIP_G}text_projection"}
    assert found[Defect.MISSHAPEN].keys == (FLAT_KEY,)
    assert found[Defect.DEAD].keys == (DEAD_KEY,)
    (detail,) = found[Defect.NON_FINITE].details
    assert found[Defect.NON_FINITE].keys == (NAN_KEY,)
    assert detail.startswith("has 2 NaN and 1 infinite of")
    assert found[Defect.POSITION_IDS].keys == (IDS,)
    assert "is float16 and has 1 wrong" in found[Defect.POSITION_IDS].text


def test_headers_alone_tell_what_they_can(damaged):
    found = findings(inspect_file(damaged))
    assert Defect.NON_FINITE not in found
    assert Defect.DEAD not in found
    assert found[Defect.POSITION_IDS].keys == (IDS,)


def test_absent_component_is_told_apart_from_missing_keys(tmp_path):
    tensors = tiny_tensors("sd1", 1)
    pruned = {k: v for k, v in tensors.items() if not k.startswith("first_stage")}
    found = inspect_file(write_checkpoint(tmp_path / "a.safetensors", pruned))
    assert len(findings(found)[Defect.ABSENT].keys) == 248
    assert Defect.MISSING not in findings(found)
    assert any("Nothing is there of: VAE" in text for text in found.all_problems())


def test_shape_stands_out_when_one_tensor_disagrees_with_the_others(tmp_path):
    tensors = tiny_tensors("sd1", 1)
    key = "model.diffusion_model.out.0.weight"
    tensors[key] = torch.zeros(9)
    found = inspect_file(write_checkpoint(tmp_path / "a.safetensors", tensors))
    finding = findings(found)[Defect.MISSHAPEN]
    assert finding.keys == (key,)
    assert finding.details == ("is [9], not [5]",)


def test_wider_first_convolution_is_kin_and_no_fault(tmp_path):
    tensors = tiny_tensors("sd1", 1)
    key = "model.diffusion_model.input_blocks.0.0.weight"
    tensors[key] = torch.randn(5, 9, 3, 3)
    found = inspect_file(write_checkpoint(tmp_path / "a.safetensors", tensors))
    assert found.all_problems() == ()
    assert "inpainting" in found.contents.kin


def test_lone_vae_is_told_as_such(tmp_path):
    vae = {
        key.removeprefix("first_stage_model."): tensor
        for key, tensor in tiny_tensors("sd1", 1).items()
        if key.startswith("first_stage_model.")
    }
    found = inspect_file(write_checkpoint(tmp_path / "x.vae.safetensors", vae))
    assert found.contents.label == "vae alone, as of Stable Diffusion 1.x"
    assert found.all_problems() == ()


def test_demo_model_is_small_and_without_fault():
    from lib_merge.demo import MODELS_DIR

    found = inspect_file(MODELS_DIR / "demo_a.safetensors")
    assert found.all_problems() == ()
    assert "smaller than the original" in found.contents.kin


def test_component_is_recognised_in_another_precision_and_architecture(tmp_path):
    one = tiny_tensors("sd1", 1)
    other = tiny_tensors("sd1", 2, dtype=torch.float32)
    sdxl = tiny_tensors("sdxl", 3)
    for key, tensor in one.items():
        if key.startswith("cond_stage_model."):
            wide = tensor.float() if tensor.is_floating_point() else tensor
            other[key] = wide
            sdxl[key.replace("cond_stage_model", "conditioner.embedders.0")] = tensor
    for name, tensors in (("one", one), ("other", other), ("sdxl", sdxl)):
        write_checkpoint(tmp_path / f"{name}.safetensors", tensors)
    found = with_namesakes(read_deep(inspect_files(find_checkpoints(tmp_path))))
    named = {i.path.stem: i.part("clip_l").same_as for i in found}
    assert named["one"] == ("other.safetensors", "sdxl.safetensors")
    assert found[0].part("unet").same_as == ()
    assert shared_components(found)[0][0] == "clip_l"


def test_values_are_not_read_twice_when_the_file_did_not_change(tmp_path):
    path = write_tiny(tmp_path / "a.safetensors", "sd1", 1)
    first = deep(path)
    (again,) = recall(inspect_files([path]))
    assert again.is_deep
    assert again.contents == first.contents
    write_tiny(path, "sd1", 2)
    assert not recall(inspect_files([path]))[0].is_deep


def test_reading_stops_when_the_user_asks(tmp_path):
    from lib_merge.engine.progress import JobProgress

    path = write_tiny(tmp_path / "a.safetensors", "sd1", 1)
    progress = JobProgress()
    progress.cancel()
    with pytest.raises(Cancelled, match="stopped as asked"):
        read_deep(inspect_files([path]), progress=progress)


def test_folder_is_listed_when_one_file_is_damaged(tmp_path):
    write_tiny(tmp_path / "a.safetensors", "sd1", 1)
    (tmp_path / "b.safetensors").write_bytes(b"<html>no</html>")
    found = read_deep(inspect_files(find_checkpoints(tmp_path)))
    assert [i.error is None for i in found] == [True, False]
    assert "web page" in (found[1].error or "")


def test_folder_is_not_opened_again_when_no_file_changed(tmp_path, monkeypatch):
    from lib_merge.analysis.health import look

    paths = [write_tiny(tmp_path / f"{i}.safetensors", "sd1", i) for i in range(3)]
    write_checkpoint(paths[2], {"x": torch.ones(1)}, {"note": "mine"})
    first = inspect_files(paths)
    opened = []
    real = look.read_header
    monkeypatch.setattr(look, "read_header", lambda p: opened.append(p) or real(p))
    assert inspect_files(paths) == first
    assert opened == []
    write_tiny(paths[1], "sd2", 7)
    assert inspect_files(paths)[1].contents.arch_id == "sd2"
    assert opened == [paths[1]]


@pytest.mark.parametrize("text", ["", "{}", '{"made_by": 1}', "[1"])
def test_damaged_memory_is_forgotten(tmp_path, text):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "inspections.json").write_text(text)
    path = write_tiny(tmp_path / "a.safetensors", "sd1", 1)
    assert inspect_files([path])[0].contents.arch_id == "sd1"


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no checkpoint"):
        find_checkpoints(tmp_path)


def test_layouts_of_many_files_are_held_against_the_table_once(tmp_path, monkeypatch):
    from lib_merge.analysis.health import look

    calls = []
    real = look.contents_of
    monkeypatch.setattr(
        look, "contents_of", lambda *a, **k: calls.append(1) or real(*a, **k)
    )
    for seed in range(5):
        write_tiny(tmp_path / f"{seed}.safetensors", "sd1", seed)
    assert len(inspect_files(find_checkpoints(tmp_path))) == 5
    assert len(calls) == 1
