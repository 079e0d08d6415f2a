"""The command `rebasin`, as people type it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lib_merge.checkpoint.hashes import cache_dir
from lib_merge.cli import main
from lib_merge.demo import MODEL_A, MODEL_B
from tests.support.checkpoints import names_in
from tests.support.rebasin_models import DEMO_HEADS, permute_file

HEADS = ("--heads", "clip_l=4")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Matrices are small here; more threads only wait for each other."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def test_midpoint_with_a_permuted_copy_is_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = permute_file(MODEL_A, tmp_path / "copy.safetensors", 4, DEMO_HEADS)
    out, aligned = tmp_path / "o.safetensors", tmp_path / "aligned.safetensors"
    report = tmp_path / "r.json"
    done = main(
        [
            *("rebasin", str(MODEL_A), str(copy), *HEADS, "--alpha", "0.5"),
            *("--out", str(out), "--aligned-out", str(aligned)),
            *("--report", str(report), "--seed", "3", "--memory", "1GB"),
        ]
    )
    printed = capsys.readouterr().out
    assert done == 0
    original, merged, second = (load_file(p) for p in (MODEL_A, out, aligned))
    for key, tensor in original.items():
        assert torch.equal(second[key], tensor), key
        if tensor.is_floating_point():
            assert torch.equal(merged[key].float(), tensor.float()), key
    data = json.loads(report.read_text(encoding="utf-8"))
    assert data["distances"]["all"]["after"] == 0.0
    assert data["distances"]["unet"]["before"] > 1.0
    assert data["is_settled"]
    assert "from a first guess" in printed
    assert "aligned they are equal" in printed
    assert "sha256" in printed
    # What the search knew is not needed any more.
    assert list((cache_dir() / "rebasin").glob("*")) == []


def test_blocks_set_alpha(tmp_path: Path) -> None:
    out = tmp_path / "o.safetensors"
    words = ("rebasin", str(MODEL_A), str(MODEL_B), *HEADS, "--out", str(out))
    assert main([*words, "--alpha", "0", "--blocks", "M00=1"]) == 0
    merged, first, second = (load_file(p) for p in (out, MODEL_A, MODEL_B))
    key = "model.diffusion_model.middle_block.0.in_layers.2.weight"
    assert torch.equal(merged[key], second[key])
    key = "model.diffusion_model.input_blocks.4.0.in_layers.2.weight"
    assert torch.equal(merged[key], first[key])
    assert names_in(tmp_path) == ["o.safetensors"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((), "No output is named"),
        (("--report", "r.json", "--alpha", "0.5"), "speak of the merge"),
        (("--out", "o.safetensors", "--blocks", "IN77=1"), "no block 'IN77'"),
        (("--out", "o.safetensors", "--alpha", "7"), "alpha"),
        (("--out", "o.safetensors", "--memory", "1MB"), "GB is needed"),
        (("--out", "o.safetensors", "--heads", "x=1"), "--heads"),
        (("--out", "o.safetensors", "--heads", "clip_l=7"), "no 7 heads"),
        (("--out", "o.safetensors", "--save-dtype", "int8"), "int8"),
    ],
    ids=[
        *("nothing", "alpha_alone", "block", "alpha", "memory", "heads"),
        *("odd_heads", "save_dtype"),
    ],
)
def test_bad_words_are_one_clear_error(
    words: tuple[str, ...],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["rebasin", str(MODEL_A), str(MODEL_B), *words]) != 0
    error = capsys.readouterr().err
    assert problem in error
    assert "Traceback" not in error
    assert names_in(tmp_path) == []
