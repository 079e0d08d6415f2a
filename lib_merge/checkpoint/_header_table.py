"""Reads the table of tensors in a safetensors header, and checks every claim in it.

Hundreds of models have the same tensors in the same order, and so the same text behind
their metadata: it is read once for all of them.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, NoReturn

from lib_merge.core.blocks import TensorInfo
from lib_merge.core.dtypes import DType
from lib_merge.errors import CheckpointError

Span = tuple[int, int]

_METADATA = b'{"__metadata__":'
_N_TABLES = 256


@dataclass(frozen=True)
class Table:
    """The tensors of a file.

    Attributes:
        infos: Shape and dtype by key, in the order of the file's bytes.
        spans: First byte and the one behind the last, from where the tensors begin.
        n_bytes: Of all tensors.
    """

    infos: Mapping[str, TensorInfo]
    spans: Mapping[str, Span]
    n_bytes: int


class Offsets(Mapping[str, Span]):
    """Places of tensors in a file.

    Args:
        base: Where the tensors begin.
        spans: Places from there.
    """

    def __init__(self, base: int, spans: Mapping[str, Span]) -> None:
        self._base = base
        self._spans = spans

    def __getitem__(self, key: str) -> Span:
        start, end = self._spans[key]
        return self._base + start, self._base + end

    def __iter__(self) -> Iterator[str]:
        return iter(self._spans)

    def __len__(self) -> int:
        return len(self._spans)


class _Tables:
    """Tables by the text that they were read from, the latest."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._held: OrderedDict[bytes, Table] = OrderedDict()

    def get(self, mark: bytes) -> Table | None:
        with self._lock:
            table = self._held.get(mark)
            if table is not None:
                self._held.move_to_end(mark)
            return table

    def put(self, mark: bytes, table: Table) -> None:
        with self._lock:
            self._held[mark] = table
            if len(self._held) > _N_TABLES:
                self._held.popitem(last=False)


_tables = _Tables()


def read_table(
    path: Path, raw: bytes, base: int, n_bytes: int
) -> tuple[Mapping[str, str], Table]:
    """The metadata and the tensors that a header claims.

    Args:
        path: The file, for messages.
        raw: The header's JSON text.
        base: Where the tensors begin.
        n_bytes: Size of the whole file.

    Raises:
        CheckpointError: Any claim that does not hold.
    """
    split = _split(raw)
    if split is None:
        return _checked_table(path, raw, base, n_bytes)
    text, rest = split
    mark = hashlib.blake2b(rest, digest_size=16).digest()
    table = _tables.get(mark)
    if table is None:
        table = _plain_table(rest)
        if table is None:
            return _checked_table(path, raw, base, n_bytes)
        _tables.put(mark, table)
    if base + table.n_bytes != n_bytes:
        return _checked_table(path, raw, base, n_bytes)
    return _metadata(path, _load_json(path, text) if text else {}), table


def _split(raw: bytes) -> tuple[bytes, bytes] | None:
    """The metadata's text, and the text of the tensors as an object of its own."""
    if not raw.startswith(_METADATA):
        return (b"", raw) if b'"__metadata__"' not in raw else None
    start = len(_METADATA)
    start += len(raw[start:]) - len(raw[start:].lstrip(b" "))
    end = _object_end(raw, start)
    if end is None or raw[end : end + 1] != b"," or b'"__metadata__"' in raw[end:]:
        return None
    # The text is filled up with spaces, how many depends on the metadata.
    return raw[start:end], b"{" + raw[end + 1 :].rstrip(b" ")


def _object_end(raw: bytes, start: int) -> int | None:
    """Behind the last byte of a flat object of strings; None for anything else."""
    if raw[start : start + 1] != b"{":
        return None
    is_inside, at = False, start + 1
    while at < len(raw):
        quote = raw.find(b'"', at)
        brace = raw.find(b"}", at)
        if not is_inside and brace >= 0 and (quote < 0 or brace < quote):
            return brace + 1 if b"{" not in raw[at:brace] else None
        if quote < 0:
            return None
        n_slashes = 0
        while raw[quote - 1 - n_slashes : quote - n_slashes] == b"\\":
            n_slashes += 1
        if not is_inside or n_slashes % 2 == 0:
            is_inside = not is_inside
        at = quote + 1
    return None


class _Odd(Exception):
    """Something that only the careful reader should judge."""


def _odd(text: str) -> NoReturn:
    raise _Odd(text)


def _plain_table(raw: bytes) -> Table | None:
    """The table where everything is as it should be, else None: read it with care."""
    if b"true" in raw or b"false" in raw:
        return None  # In a shape they would pass for 1 and 0.
    try:
        data = json.loads(raw, parse_float=_odd, parse_constant=_odd)
        if any(raw.count(name) != len(data) for name in _NAMES):
            return None  # Something is there twice, or an entry lacks a part.
        return _table_of(data)
    except (_Odd, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


_NAMES = (b'"dtype"', b'"shape"', b'"data_offsets"')


def _table_of(data: dict[str, Any]) -> Table | None:
    infos: dict[str, TensorInfo] = {}
    spans: dict[str, Span] = {}
    position = 0
    for name, entry in data.items():
        start, end = entry["data_offsets"]
        info, n_bytes = _sized(entry["dtype"], tuple(entry["shape"]))
        if start != position or end - start != n_bytes:
            return None
        key = sys.intern(name)
        infos[key] = info
        spans[key] = (start, end)
        position = end
    return Table(infos, spans, position) if infos else None


@lru_cache(maxsize=1 << 14)
def _sized(code: str, shape: tuple[int, ...]) -> tuple[TensorInfo, int]:
    """A tensor, and its bytes.

    Raises:
        KeyError: Unknown type.
        ValueError: Not a shape.
    """
    if not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError(shape)
    info = _info(code, shape)
    return info, info.n_bytes


def _checked_table(
    path: Path, raw: bytes, base: int, n_bytes: int
) -> tuple[Mapping[str, str], Table]:
    """The same with care: what is wrong is said in words, and any order is sorted."""
    data = _load_json(path, raw)
    metadata = _metadata(path, data.pop("__metadata__", {}))
    found = [_entry(path, key, entry, base, n_bytes) for key, entry in data.items()]
    if not found:
        raise CheckpointError(f"{path} holds no tensors; choose another checkpoint.")
    found.sort(key=lambda item: (item[2][0], item[2][1]))
    _check_cover(path, found, base, n_bytes)
    infos = {key: info for key, info, _ in found}
    spans = {key: (s - base, e - base) for key, _, (s, e) in found}
    return metadata, Table(infos, spans, n_bytes - base)


def _load_json(path: Path, raw: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise CheckpointError(
                f"{path} has a damaged header: '{twice}' occurs twice in it; "
                "download or save the file again."
            )
        return found

    try:
        data = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as fault:
        raise CheckpointError(
            f"{path} is no safetensors file or is damaged: its header is not JSON "
            f"({type(fault).__name__}); download it again."
        ) from fault
    if not isinstance(data, dict):
        raise CheckpointError(
            f"{path} has a damaged header: a JSON object is wanted, it is a "
            f"{type(data).__name__}; download it again."
        )
    return data


def _metadata(path: Path, data: Any) -> dict[str, str]:
    if not isinstance(data, dict):
        raise CheckpointError(
            f"{path} has a damaged header: its metadata is a {type(data).__name__}, "
            "not an object of strings; save the file again."
        )
    for name, value in data.items():
        if not isinstance(value, str):
            raise CheckpointError(
                f"{path} has a damaged header: metadata '{name}' is a "
                f"{type(value).__name__}, only strings are allowed; save it again."
            )
    return data


Entry = tuple[str, TensorInfo, tuple[int, int]]


def _entry(path: Path, key: str, entry: Any, base: int, n_bytes: int) -> Entry:
    where = f"{path}, tensor '{key}'"
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= set(
        entry
    ):
        raise CheckpointError(
            f"{where}: its header entry needs dtype, shape and data_offsets; "
            "the file is damaged, download it again."
        )
    code, shape, span = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in DType.__members__:
        raise CheckpointError(
            f"{where}: the dtype {str(code)[:40]!r} is not one that MergeLab reads "
            f"({', '.join(DType.__members__)}); convert the file to float16 first."
        )
    if not _is_count_list(shape):
        raise CheckpointError(
            f"{where}: the shape {str(shape)[:60]} is no list of sizes; "
            "the file is damaged, download it again."
        )
    if not _is_count_list(span) or len(span) != 2 or span[0] > span[1]:
        raise CheckpointError(
            f"{where}: the offsets {str(span)[:60]} are no byte range; "
            "the file is damaged, download it again."
        )
    info = _info(code, tuple(shape))
    if info.n_bytes != span[1] - span[0]:
        raise CheckpointError(
            f"{where}: its shape {str(list(shape))[:60]} in {code} needs "
            f"{_short(info.n_bytes)} bytes, its offsets give "
            f"{_short(span[1] - span[0])}; the file is damaged, download it again."
        )
    if base + span[1] > n_bytes:
        raise CheckpointError(
            f"{where}: it ends at byte {_short(base + span[1])}, the file has only "
            f"{n_bytes} bytes; it is truncated, download it again."
        )
    # Hundreds of models have the same keys and shapes: one copy of each serves all.
    return sys.intern(key), info, (base + span[0], base + span[1])


@lru_cache(maxsize=1 << 14)
def _info(code: str, shape: tuple[int, ...]) -> TensorInfo:
    return TensorInfo(DType[code], shape)


def _short(number: int) -> str:
    """A number for a message; a hostile header may claim one of thousands of digits."""
    return str(number) if number < 1 << 80 else "more than 2^80"


def _is_count_list(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(side, int) and not isinstance(side, bool) and side >= 0
        for side in value
    )


def _check_cover(path: Path, found: list[Entry], base: int, n_bytes: int) -> None:
    """The tensors lie side by side: no overlap, no gap, nothing behind the last."""
    position, before = base, "the header"
    for key, _, (start, end) in found:
        if start != position:
            fault = "overlaps" if start < position else "leaves a gap after"
            raise CheckpointError(
                f"{path}, tensor '{key}': it {fault} {before} (starts at byte {start}, "
                f"expected {position}); the file is damaged, download it again."
            )
        position, before = end, f"'{key}'"
    if position != n_bytes:
        raise CheckpointError(
            f"{path} has {n_bytes - position} bytes behind its last tensor; "
            "it is damaged or was padded, download or save it again."
        )
