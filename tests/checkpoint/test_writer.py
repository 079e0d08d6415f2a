"""Written files are whole, aligned and readable by others; or not there at all."""

from __future__ import annotations

import errno
import os

import pytest
import torch
from safetensors import safe_open

from lib_merge.checkpoint import _positional
from lib_merge.checkpoint.header import read_header
from lib_merge.checkpoint.writer import PendingFile, layout_of
from lib_merge.core.blocks import TensorInfo
from lib_merge.core.dtypes import DType
from lib_merge.errors import (
    CheckpointError,
    DiskFullError,
    OutputError,
    ResourceError,
)
from tests.support.checkpoints import names_in

MIXED = [
    ("bytes", TensorInfo(DType.F8_E4M3, (3,))),
    ("wide", TensorInfo(DType.F64, (2, 2))),
    ("half", TensorInfo(DType.F16, (5,))),
    ("ids", TensorInfo(DType.I64, (1, 3))),
    ("scalar", TensorInfo(DType.F32, ())),
    ("empty", TensorInfo(DType.F16, (0, 7))),
]


def test_layout_aligns_each_tensor_to_its_size_when_types_are_mixed():
    layout = layout_of(MIXED)
    assert list(layout.infos)[:2] == ["wide", "ids"]
    header = layout.header_bytes({"format": "pt"})
    assert len(header) % 8 == 0
    for key, info in layout.infos.items():
        assert layout.starts[key] % info.dtype.size == 0


def test_header_has_the_wanted_size_when_metadata_got_shorter():
    layout = layout_of(MIXED)
    n_bytes = len(layout.header_bytes({"a": "x" * 100}))
    assert len(layout.header_bytes({"a": "x"}, n_bytes)) == n_bytes


@pytest.mark.parametrize("has_pwrite", [True, False], ids=["pwrite", "seek"])
def test_written_file_opens_in_the_safetensors_package_when_committed(
    tmp_path, monkeypatch, has_pwrite
):
    monkeypatch.setattr(_positional, "HAS_POSITIONAL_IO", has_pwrite)
    layout = layout_of(MIXED)
    header = layout.header_bytes({"format": "pt", "snow": "naïve ✓"})
    target = tmp_path / "x.safetensors"
    pending = PendingFile(target, len(header) + layout.n_tensor_bytes)
    values = torch.arange(5).to(torch.float16)
    pending.write_at(
        len(header) + layout.starts["half"], values.view(torch.uint8).numpy().data
    )
    pending.write_at(0, header)
    assert not target.exists()
    pending.sync()
    pending.commit(layout)
    pending.discard()
    with safe_open(str(target), framework="pt") as file:
        assert file.metadata() == {"format": "pt", "snow": "naïve ✓"}
        assert torch.equal(file.get_tensor("half"), values)
        assert file.get_tensor("scalar").shape == ()
    assert read_header(target).metadata["snow"] == "naïve ✓"
    assert names_in(tmp_path) == ["x.safetensors"]


def test_pending_file_leaves_nothing_when_discarded(tmp_path):
    pending = PendingFile(tmp_path / "x.safetensors", 100)
    assert len(names_in(tmp_path)) == 1
    pending.discard()
    pending.discard()
    assert names_in(tmp_path) == []


def test_commit_refuses_when_the_file_is_not_what_was_planned(tmp_path):
    layout = layout_of(MIXED)
    pending = PendingFile(tmp_path / "x.safetensors", 8 + layout.n_tensor_bytes)
    pending.write_at(0, layout_of(MIXED[:2]).header_bytes({}))
    with pytest.raises((CheckpointError, ResourceError), match=r"\.tmp"):
        pending.commit(layout)
    pending.discard()
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (errno.ENOSPC, DiskFullError, "has no room"),
        (errno.EFBIG, DiskFullError, "takes no file of"),
        (errno.EIO, ResourceError, "failed"),
    ],
    ids=["full", "too_big", "broken"],
)
def test_pending_file_raises_and_leaves_nothing_when_disk(
    tmp_path, monkeypatch, code, kind, message
):
    def refuse(self, n_bytes):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(_positional.PositionalFile, "allocate", refuse)
    with pytest.raises(kind, match=message):
        PendingFile(tmp_path / "x.safetensors", 100)
    assert names_in(tmp_path) == []


def test_pending_file_raises_when_folder_is_missing(tmp_path):
    with pytest.raises(OutputError, match="cannot be written to"):
        PendingFile(tmp_path / "no" / "x.safetensors", 100)
