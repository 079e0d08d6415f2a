"""Headers, readers and names of well-formed files."""

from __future__ import annotations

import threading

import pytest
import torch

from lib_merge.checkpoint import _positional
from lib_merge.checkpoint.header import read_header
from lib_merge.checkpoint.names import stored_name
from lib_merge.checkpoint.reader import CheckpointReader
from lib_merge.errors import CheckpointError
from tests.support.checkpoints import tiny_tensors, write_checkpoint, write_tiny

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
]


@pytest.fixture(params=[True, False], ids=["pread", "seek"])
def positional_io(request, monkeypatch):
    """Both ways of reading at an offset; systems without pread have the second."""
    monkeypatch.setattr(_positional, "HAS_POSITIONAL_IO", request.param)


@pytest.mark.usefixtures("positional_io")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_read_gives_the_stored_bits_when_dtype_is(tmp_path, dtype):
    values = torch.arange(0, 24).to(dtype).reshape(2, 3, 4)
    path = write_checkpoint(tmp_path / "x.safetensors", {"x": values})
    with CheckpointReader(read_header(path)) as reader:
        read = reader.read("x")
        part = reader.read("x", 5, 11)
    flat = values.reshape(-1)
    assert read.dtype is dtype
    assert torch.equal(read.view(torch.uint8), flat.view(torch.uint8))
    assert torch.equal(part.view(torch.uint8), flat[5:11].clone().view(torch.uint8))


@pytest.mark.parametrize("arch_id", ["sd1", "sd2", "sdxl"])
def test_header_agrees_with_the_safetensors_package_when_layout_is(tmp_path, arch_id):
    tensors = tiny_tensors(arch_id, 3)
    header = read_header(write_checkpoint(tmp_path / "x.safetensors", tensors))
    shapes = {key: info.shape for key, info in header.infos.items()}
    assert shapes == {key: tuple(t.shape) for key, t in tensors.items()}
    with CheckpointReader(header) as reader:
        for key, tensor in tensors.items():
            assert torch.equal(reader.read(key), tensor.reshape(-1))


def test_read_gives_scalars_and_empty_tensors_when_stored(tmp_path):
    tensors = {"scalar": torch.tensor(3.5), "empty": torch.zeros(0, 4)}
    path = write_checkpoint(tmp_path / "x.safetensors", tensors)
    with CheckpointReader(read_header(path)) as reader:
        assert reader.read("scalar").tolist() == [3.5]
        assert reader.read("empty").numel() == 0


@pytest.mark.usefixtures("positional_io")
def test_read_is_right_when_many_threads_read(tmp_path):
    tensors = tiny_tensors("sd1", 1)
    path = write_checkpoint(tmp_path / "x.safetensors", tensors)
    wrong = []
    with CheckpointReader(read_header(path)) as reader:

        def read_all() -> None:
            for key, tensor in list(tensors.items())[:300]:
                if not torch.equal(reader.read(key), tensor.reshape(-1)):
                    wrong.append(key)

        threads = [threading.Thread(target=read_all) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_header_is_read_anew_when_file_changes(tmp_path):
    path = tmp_path / "x.safetensors"
    write_checkpoint(path, {"x": torch.zeros(2)})
    assert read_header(path).infos["x"].shape == (2,)
    write_checkpoint(path, {"x": torch.zeros(5)})
    assert read_header(path).infos["x"].shape == (5,)


def test_reader_refuses_when_file_shrank_since_its_header(tmp_path):
    path = write_tiny(tmp_path / "x.safetensors")
    header = read_header(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="changed while it was in use"):
        CheckpointReader(header)


def test_reader_refuses_when_file_shrinks_while_open(tmp_path):
    path = write_tiny(tmp_path / "x.safetensors")
    header = read_header(path)
    last = max(header.offsets, key=lambda key: header.offsets[key][1])
    with CheckpointReader(header) as reader:
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(CheckpointError, match="the file ended"):
            reader.read(last)


def test_reader_refuses_when_file_is_gone(tmp_path):
    path = write_tiny(tmp_path / "x.safetensors")
    header = read_header(path)
    path.unlink()
    with pytest.raises(CheckpointError, match="does not exist"):
        CheckpointReader(header)


@pytest.mark.parametrize(
    ("keys", "key", "found"),
    [
        (["a"], "a", "a"),
        (["a"], "b", None),
        (
            ["cond_stage_model.transformer.embeddings.x"],
            "cond_stage_model.transformer.text_model.embeddings.x",
            "cond_stage_model.transformer.embeddings.x",
        ),
        (
            ["cond_stage_model.transformer.text_model.embeddings.x"],
            "cond_stage_model.transformer.embeddings.x",
            "cond_stage_model.transformer.text_model.embeddings.x",
        ),
    ],
    ids=["same", "absent", "shorter", "longer"],
)
def test_stored_name_finds_the_key_when_spelled(keys, key, found):
    assert stored_name(keys, key) == found
