"""The fast way to read a header gives what the careful way gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_merge.checkpoint import _header_table
from lib_merge.checkpoint.header import parse_header
from lib_merge.errors import CheckpointError

PATH = Path("x.safetensors")


@pytest.fixture(autouse=True)
def no_tables(monkeypatch):
    monkeypatch.setattr(_header_table, "_tables", _header_table._Tables())


def entries(n=3, start=0):
    return {
        f"block.{i}.weight": {
            "dtype": "F16",
            "shape": [2, 2],
            "data_offsets": [start + 8 * i, start + 8 * i + 8],
        }
        for i in range(n)
    }


def parse(text, n_tensor_bytes=24):
    raw = text if isinstance(text, bytes) else json.dumps(text).encode()
    return parse_header(PATH, raw, 8 + len(raw) + n_tensor_bytes)


def careful(raw, n_tensor_bytes=24):
    base = 8 + len(raw)
    return _header_table._checked_table(PATH, raw, base, base + n_tensor_bytes)


METADATA = st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=4)


@settings(max_examples=200, deadline=None)
@given(metadata=METADATA, spaced=st.booleans())
def test_any_metadata_is_read_as_the_careful_reader_does(metadata, spaced):
    separators = (", ", ": ") if spaced else (",", ":")
    header = {"__metadata__": metadata, **entries()}
    raw = json.dumps(header, separators=separators).encode()
    found = parse(raw)
    wanted, table = careful(raw)
    assert found.metadata == wanted == metadata
    assert dict(found.infos) == dict(table.infos)
    base = 8 + len(raw)
    assert dict(found.offsets) == {
        key: (base + s, base + e) for key, (s, e) in table.spans.items()
    }
    assert list(found.infos) == list(table.infos)


TRICKY = {
    "braces": {"a": '}{"x":{', "b": "{}"},
    "backslashes": {"a": "\\", "b": '\\"', "c": '"\\\\'},
    "key of its own name": {"__metadata__": "x"},
    "words of the table": {"a": '"dtype" "shape" "data_offsets" true'},
    "empty": {},
}


@pytest.mark.parametrize("name", TRICKY)
def test_tricky_metadata_is_read_whole(name):
    found = parse({"__metadata__": TRICKY[name], **entries()})
    assert found.metadata == TRICKY[name]
    assert len(found.infos) == 3


def test_metadata_behind_the_tensors_is_read():
    found = parse({**entries(), "__metadata__": {"a": "b"}})
    assert found.metadata == {"a": "b"}


def test_tensors_are_read_once_for_files_that_hold_the_same():
    one = parse({"__metadata__": {"a": "b"}, **entries()})
    filled = json.dumps({"__metadata__": {"title": "other"}, **entries()}) + "   "
    two = parse(filled.encode())
    assert one.infos is two.infos
    assert one.offsets["block.0.weight"] != two.offsets["block.0.weight"]
    assert two.offsets["block.0.weight"][0] == two.data_start


def test_tensors_are_sorted_where_the_header_is_not():
    shuffled = dict(reversed(list(entries().items())))
    assert list(parse(shuffled).infos) == [f"block.{i}.weight" for i in range(3)]


def test_file_of_another_size_is_refused_though_its_header_is_known():
    header = {"__metadata__": {"a": "b"}, **entries()}
    parse(header)
    with pytest.raises(CheckpointError, match="truncated"):
        parse(header, n_tensor_bytes=23)
    with pytest.raises(CheckpointError, match="1 bytes behind its last tensor"):
        parse(header, n_tensor_bytes=25)


def changed(**change):
    found = entries()
    found["block.1.weight"] = {**found["block.1.weight"], **change}
    return found


BAD = {
    "true in a shape": (changed(shape=[True, 4]), "is no list of sizes"),
    "float in a shape": (changed(shape=[1.0, 4]), "is no list of sizes"),
    "negative": (changed(shape=[-2, -2]), "is no list of sizes"),
    "text for a shape": (changed(shape="22"), "is no list of sizes"),
    "unknown type": (changed(dtype="F4"), "is not one that MergeLab reads"),
    "type is a list": (changed(dtype=["F16"]), "is not one that MergeLab reads"),
    "three offsets": (changed(data_offsets=[8, 16, 16]), "are no byte range"),
    "gap": (changed(data_offsets=[9, 17]), "gap"),
    "wrong size": (changed(shape=[2, 3]), "needs 12 bytes"),
    "no tensors": ({"__metadata__": {"a": "b"}}, "holds no tensors"),
    "list": ([1, 2], "a JSON object is wanted"),
    "metadata is a number": ({"__metadata__": {"a": 1}, **entries()}, "is a int"),
    "metadata is nested": ({"__metadata__": {"a": {}}, **entries()}, "is a dict"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_header_is_refused_with_its_reason(name):
    header, message = BAD[name]
    with pytest.raises(CheckpointError, match=message):
        parse(header)


@pytest.mark.parametrize(
    "twice",
    ['"block.0.weight":', '"dtype":"F16",', '"__metadata__":{},'],
    ids=["tensor", "part of an entry", "metadata"],
)
def test_what_occurs_twice_is_refused(twice):
    text = json.dumps({"__metadata__": {}, **entries()}, separators=(",", ":"))
    if twice.endswith(":"):
        text = text.replace('"block.1.weight":', twice)
    else:
        text = text.replace(twice, twice + twice, 1)
    with pytest.raises(CheckpointError, match=r"occurs twice|overlaps"):
        parse(text.encode())
