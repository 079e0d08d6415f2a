"""Pickled checkpoints load as plain tensors, or are refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from lib_merge.checkpoint.header import read_header
from lib_merge.checkpoint.reader import CheckpointReader
from lib_merge.errors import CheckpointError
from tests.support.checkpoints import tiny_tensors


class Evil:
    """Would create a file when unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self):
        return (Path.touch, (self.victim,))


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize("is_nested", [True, False], ids=["nested", "flat"])
def test_ckpt_reads_like_safetensors_when_plain(tmp_path, is_zip, is_nested):
    tensors = tiny_tensors("sd1", 2)
    data = {"state_dict": tensors, "global_step": 7} if is_nested else tensors
    path = tmp_path / "x.ckpt"
    torch.save(data, path, _use_new_zipfile_serialization=is_zip)
    header = read_header(path)
    assert header.is_legacy
    with CheckpointReader(header) as reader:
        for key, tensor in tensors.items():
            assert torch.equal(reader.read(key), tensor.reshape(-1))
        key = max(tensors, key=lambda name: tensors[name].numel())
        assert torch.equal(reader.read(key, 3, 9), tensors[key].reshape(-1)[3:9])


def test_ckpt_reads_rows_in_order_when_tensor_is_a_view(tmp_path):
    values = torch.arange(12.0).reshape(3, 4).t()
    path = tmp_path / "x.ckpt"
    torch.save({"x": values}, path)
    with CheckpointReader(read_header(path)) as reader:
        assert torch.equal(reader.read("x", 2, 7), values.reshape(-1)[2:7])


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_ckpt_is_refused_and_never_run_when_it_holds_code(tmp_path, form):
    victim = tmp_path / "victim"
    path = tmp_path / "evil.ckpt"
    data = {"state_dict": {"x": Evil(victim)}}
    if form == "torch":
        torch.save(data, path)
    else:
        path.write_bytes(pickle.dumps(data, protocol=2))
    with pytest.raises(CheckpointError, match=r"evil\.ckpt .* is refused"):
        read_header(path)
    assert not victim.exists()


@pytest.mark.parametrize("n_kept", [10, 200, -20], ids=str)
def test_ckpt_is_refused_when_cut(tmp_path, n_kept):
    path = tmp_path / "x.ckpt"
    torch.save({"x": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:n_kept])
    with pytest.raises(CheckpointError, match=r"x\.ckpt .* is refused"):
        read_header(path)


def test_ckpt_is_refused_when_it_holds_no_tensors(tmp_path):
    path = tmp_path / "x.ckpt"
    torch.save({"epoch": 3}, path)
    with pytest.raises(CheckpointError, match="without named tensors"):
        read_header(path)


def test_ckpt_is_refused_when_a_dtype_is_unknown(tmp_path):
    path = tmp_path / "x.ckpt"
    torch.save({"x": torch.zeros(3, dtype=torch.complex64)}, path)
    with pytest.raises(CheckpointError, match="dtype complex64"):
        read_header(path)
