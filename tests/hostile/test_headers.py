"""Files that lie, are cut short or are something else: one clear error each."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_merge.checkpoint.header import read_header
from lib_merge.errors import CheckpointError
from tests.support.checkpoints import write_tiny

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def write_raw(path: Path, header: bytes, data: bytes = b"") -> Path:
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def write_json(path: Path, header: object, data: bytes = b"\0" * 8) -> Path:
    return write_raw(path, json.dumps(header).encode(), data)


HEADERS = {
    "not_json": (b"{not json", b"", "not JSON"),
    "not_utf8": (b'{"\xff\xfe": 1}', b"", "not JSON"),
    "a_list": (b"[1, 2]", b"", "a JSON object is wanted"),
    "deeply_nested": (b"[" * 100_000, b"", "not JSON"),
    "duplicate_keys": (
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
        b'"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        b"\0" * 8,
        "'a' occurs twice",
    ),
    "huge_number": (
        b'{"a":{"dtype":"F32","shape":[1' + b"0" * 400 + b'],"data_offsets":[0,8]}}',
        b"\0" * 8,
        "more than 2\\^80",
    ),
}


@pytest.mark.parametrize("name", HEADERS)
def test_read_header_refuses_when_text_is_bad(tmp_path, name):
    header, data, message = HEADERS[name]
    path = write_raw(tmp_path / "x.safetensors", header, data)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_header(path)
    assert str(path) in str(caught.value)


CLAIMS = {
    "overlap": (
        {"a": F32, "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}},
        12,
        "'b': it overlaps 'a'",
    ),
    "gap": (
        {"a": F32, "b": {"dtype": "F32", "shape": [2], "data_offsets": [12, 20]}},
        20,
        "'b': it leaves a gap after 'a'",
    ),
    "gap_at_start": (
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}},
        12,
        "leaves a gap after the header",
    ),
    "backwards": (
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}},
        8,
        "no byte range",
    ),
    "negative": (
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}},
        8,
        "no byte range",
    ),
    "negative_shape": (
        {"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}},
        8,
        "no list of sizes",
    ),
    "fractional_offset": (
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8.0]}},
        8,
        "no byte range",
    ),
    "boolean_shape": (
        {"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}},
        4,
        "no list of sizes",
    ),
    "huge_offset": (
        {"a": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 2**62]}},
        8,
        "the file has only",
    ),
    "shape_and_bytes_differ": (
        {"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}},
        8,
        "needs 12 bytes, its offsets give 8",
    ),
    "unknown_dtype": (
        {"a": {"dtype": "Q4_0", "shape": [2], "data_offsets": [0, 8]}},
        8,
        "'Q4_0' is not one that MergeLab reads",
    ),
    "dtype_is_a_list": (
        {"a": {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]}},
        8,
        "is not one that MergeLab reads",
    ),
    "entry_is_text": ({"a": "F32"}, 8, "needs dtype, shape and data_offsets"),
    "metadata_not_strings": (
        {"__metadata__": {"step": 3}, "a": F32},
        8,
        "metadata 'step' is a int",
    ),
    "metadata_is_a_list": ({"__metadata__": [1], "a": F32}, 8, "metadata is a list"),
    "no_tensors": ({}, 0, "holds no tensors"),
    "truncated_data": ({"a": F32}, 5, "truncated"),
    "bytes_behind": ({"a": F32}, 9, "1 bytes behind its last tensor"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_read_header_refuses_when_a_claim_is_false(tmp_path, name):
    header, n_data, message = CLAIMS[name]
    path = write_json(tmp_path / "x.safetensors", header, b"\0" * n_data)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_header(path)
    assert str(path) in str(caught.value)


WRONG_KINDS = {
    "empty": (b"", "is empty"),
    "one_byte": (b"x", "has only 1 bytes"),
    "html": (b"<!DOCTYPE html><html><body>Log in</body></html>", "is a web page"),
    "html_with_spaces": (b"\n  <html lang='en'>please wait</html>", "is a web page"),
    "lfs_pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 2132625894\n",
        "Git LFS pointer",
    ),
    "gguf": (b"GGUF\x03\0\0\0" + b"\0" * 100, "GGUF"),
    "archive": (b"7z\xbc\xaf\x27\x1c" + b"\0" * 100, "an archive"),
    "pickle": (pickle.dumps({"a": 1}, protocol=2), "a pickled checkpoint"),
    "header_longer_than_file": (struct.pack("<Q", 5000) + b"{}", "is truncated"),
    "header_over_limit": (struct.pack("<Q", 200_000_000) + b"{}", "the limit is"),
    "text": (b"This is no model at all, only text.", "the limit is"),
}


@pytest.mark.parametrize("name", WRONG_KINDS)
def test_read_header_names_the_kind_when_it_is_no_model(tmp_path, name):
    content, message = WRONG_KINDS[name]
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_header(path)
    assert str(path) in str(caught.value)


def test_read_header_refuses_when_zip_is_called_safetensors(tmp_path):
    path = tmp_path / "x.safetensors"
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match=r"pickled checkpoint \(\.ckpt\)"):
        read_header(path)


def test_read_header_refuses_when_path_is_a_folder(tmp_path):
    with pytest.raises(CheckpointError, match="is a folder"):
        read_header(tmp_path)


def test_read_header_refuses_when_file_is_missing(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.safetensors does not exist"):
        read_header(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("n_kept", [0, 1, 7, 8, 9, 100, -1], ids=str)
def test_read_header_refuses_when_file_is_cut(tmp_path, n_kept):
    whole = write_tiny(tmp_path / "whole.safetensors").read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(whole[:n_kept])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors"):
        read_header(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "a"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "I64", "BOOL", "F8_E4M3", "X"]),
        "shape": st.lists(st.integers(-1, 6), max_size=3),
        "data_offsets": st.lists(st.integers(-1, 40), min_size=1, max_size=3),
    }
)


@settings(max_examples=300, deadline=None)
@given(
    header=st.dictionaries(st.text(max_size=4), ENTRY | JSON, max_size=4) | JSON,
    data=st.binary(max_size=48),
)
def test_read_header_raises_nothing_else_when_json_is_random(
    tmp_path_factory, header, data
):
    path = tmp_path_factory.mktemp("x") / "x.safetensors"
    write_json(path, header, data)
    try:
        found = read_header(path)
    except CheckpointError:
        return
    spans = [end - start for start, end in found.offsets.values()]
    assert sum(spans) == len(data)


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=200))
def test_read_header_raises_nothing_else_when_bytes_are_random(
    tmp_path_factory, content
):
    path = tmp_path_factory.mktemp("x") / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        read_header(path)
