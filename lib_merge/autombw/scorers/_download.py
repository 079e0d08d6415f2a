"""Downloads of scorer weights: resumed, checked, shown, whole or not there."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import re
import shutil
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO

from lib_merge.core.ports import Progress
from lib_merge.errors import DiskFullError, ScorerError

_log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_TIMEOUT_S = 30.0
_TRIES = 3
_SHA256 = re.compile(r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class Source:
    """A file on the web.

    Attributes:
        url: Where.
        sha256: Of its content, where it is known beforehand; else what the server says
            (the Hugging Face hub names it for every large file) is compared with.
    """

    url: str
    sha256: str | None = None


@dataclass(frozen=True)
class _Facts:
    """What a server says of a file."""

    n_bytes: int | None
    sha256: str | None


class _KeepsHash(urllib.request.HTTPRedirectHandler):
    """Follows redirects, and keeps the hub's hash, which only the first answer has."""

    def __init__(self) -> None:
        self.sha256: str | None = None

    def redirect_request(  # type: ignore[no-untyped-def]  # urllib's signature
        self, req, fp, code, msg, headers, newurl
    ):
        self.sha256 = _hash_in(headers) or self.sha256
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _hash_in(headers: Message) -> str | None:
    for name in ("X-Linked-Etag", "ETag"):
        value = (headers.get(name) or "").removeprefix("W/").strip('"').lower()
        if _SHA256.match(value):
            return value
    return None


def is_offline() -> bool:
    """Whether the user told Hugging Face libraries to stay off the network."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(
        os.environ.get(name, "").upper() in ("1", "TRUE", "ON") for name in names
    )


def download(source: Source, target: Path, progress: Progress | None = None) -> Path:
    """Bring a file to this machine; what an earlier attempt brought is kept.

    Args:
        source: Where from.
        target: Where to; it appears whole and checked, or not at all.
        progress: Shown bytes, and asked whether to stop.

    Raises:
        ScorerError: Offline, refused, cut off, or not what it should be.
        DiskFullError: No room.
        Cancelled: The user stopped it; the part is kept for the next time.
    """
    if is_offline():
        raise ScorerError(
            f"{target.name} is not on this machine, and HF_HUB_OFFLINE keeps it off "
            f"the network; download {source.url} elsewhere and put it at {target}."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    for attempt in range(_TRIES):
        try:
            facts = _fetch(source, part, target, progress)
            break
        except (OSError, http.client.HTTPException) as fault:
            is_last = attempt == _TRIES - 1 or isinstance(fault, urllib.error.HTTPError)
            if is_last:
                raise _unreachable(source, target, fault) from fault
            _log.warning("The download of %s broke off (%s).", target.name, fault)
    _check(part, facts, source, target, progress)
    os.replace(part, target)  # noqa: PTH105 - as everywhere in this project
    return target


def _unreachable(source: Source, target: Path, fault: Exception) -> ScorerError:
    reason = getattr(fault, "reason", None) or fault
    return ScorerError(
        f"{source.url} cannot be downloaded ({reason}). If this machine has no "
        f"network, download it elsewhere and put it at {target}; what was received is "
        "kept."
    )


def _fetch(
    source: Source, part: Path, target: Path, progress: Progress | None
) -> _Facts:
    """Append what is missing to the part."""
    n_have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(source.url, headers={"User-Agent": "MergeLab"})
    if n_have:
        request.add_header("Range", f"bytes={n_have}-")
    keeper = _KeepsHash()
    opener = urllib.request.build_opener(keeper)
    try:
        answer = opener.open(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as fault:
        if fault.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE or not n_have:
            raise
        # The part is whole already, or longer than the file: its hash decides.
        return _Facts(None, keeper.sha256 or _hash_in(fault.headers))
    with answer:
        is_rest = answer.status == http.client.PARTIAL_CONTENT
        n_have = n_have if is_rest else 0
        length = answer.headers.get("Content-Length")
        total = int(length) + n_have if length else None
        _check_room(part, (total or 0) - n_have)
        if progress is not None:
            progress.start(f"Downloading {target.name}", total or 0)
            progress.advance(n_have)
        with part.open("ab" if is_rest else "wb") as file:
            _copy(answer, file, progress)
        n_bytes = part.stat().st_size
        if total is not None and n_bytes < total:
            raise ConnectionError(f"it broke off after {n_bytes} of {total} bytes")
        return _Facts(total, keeper.sha256 or _hash_in(answer.headers))


def _copy(
    answer: http.client.HTTPResponse, file: IO[bytes], progress: Progress | None
) -> None:
    while chunk := answer.read(_CHUNK):
        file.write(chunk)
        if progress is not None:
            progress.advance(len(chunk))
            progress.check()


def _check_room(part: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if free < n_bytes:
        raise DiskFullError(
            f"The disk of {part.parent} has {free >> 20} MiB left; the download needs "
            f"{n_bytes >> 20} MiB."
        )


def _check(
    part: Path,
    facts: _Facts,
    source: Source,
    target: Path,
    progress: Progress | None,
) -> None:
    """Raise, and drop the part, unless it is what was published."""
    n_bytes = part.stat().st_size
    wanted = source.sha256 or facts.sha256
    if facts.n_bytes is not None and n_bytes != facts.n_bytes:
        part.unlink()
        raise ScorerError(f"{source.url} sent too much; try again.")
    if wanted is None:
        _log.warning(
            "%s names no checksum, so that only the length of %s was checked.",
            *(source.url, target.name),
        )
        return
    found = _sha256(part, progress)
    if found != wanted:
        with suppress(OSError):
            part.unlink()
        raise ScorerError(
            f"{target.name} has the SHA-256 {found}, but {wanted} was published; the "
            "download was damaged and is removed. Try again."
        )


def _sha256(path: Path, progress: Progress | None) -> str:
    digest = hashlib.sha256()
    if progress is not None:
        progress.start(f"Checking {path.stem}", path.stat().st_size)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            if progress is not None:
                progress.advance(len(chunk))
                progress.check()
    return digest.hexdigest()
