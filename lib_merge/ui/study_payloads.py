"""Payloads that a user hands over: files, generation data, the txt2img page."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib_merge.errors import PayloadError


def keep_files(folder: Path, files: Sequence[Path]) -> list[Path]:
    """Keep uploaded payload files; each is read first.

    Raises:
        PayloadError: One of them is no payload; none is kept then.
    """
    from lib_merge.autombw.payloads import read_reported

    for file in files:
        read_reported([file])
    kept = []
    for file in files:
        target = folder / file.name
        shutil.copyfile(file, target)
        kept.append(target)
    return kept


def keep_infotext(folder: Path, text: str) -> Path:
    """Keep generation data, as the WebUI writes it under a picture, as a payload.

    Raises:
        PayloadError: It is none.
    """
    from lib_merge.autombw.infotext import parse_infotext

    return _keep(folder, parse_infotext(text, "The generation data"))


def keep_txt2img(folder: Path, text: str) -> Path:
    """Keep the WebUI's txt2img settings, as JSON, as a payload.

    Raises:
        PayloadError: They are none.
    """
    try:
        values = json.loads(text or "null")
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise PayloadError(
            "There is no txt2img page here; paste generation data, or upload a picture."
        )
    return _keep(folder, values)


def _keep(folder: Path, values: Mapping[str, Any]) -> Path:
    from lib_merge.autombw.payloads import payload_from_txt2img

    stem = time.strftime("txt2img-%Y%m%d-%H%M%S")
    payload, _ = payload_from_txt2img(values, stem)
    target = folder / f"{stem}.json"
    text = json.dumps(payload.to_json(), indent=2, ensure_ascii=False)
    target.write_text(text, encoding="utf-8")
    return target
