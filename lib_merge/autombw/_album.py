"""Pictures inside the report: small, as text, and never more than the file may hold."""

from __future__ import annotations

import base64
import html
import io
import logging
from collections.abc import Sequence
from pathlib import Path

from lib_merge.autombw.records import ImageScore

_log = logging.getLogger(__name__)

THUMB_PX = 272
"""Longest side of a picture in the report: twice what it is shown at."""

MAX_PLAIN_BYTES = 24_000
"""A small PNG up to this size goes in as it is."""

BUDGET_BYTES = 15_000_000
"""Bytes of all pictures of a report together, as base64."""

MAX_PICTURES = 24
"""Pictures shown of one trial or candidate."""


class Album:
    """Gives pictures as figures until its budget is spent.

    Args:
        budget_bytes: What all of them may take together.
    """

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self._left = budget_bytes
        self.n_left_out = 0

    def shots(self, folder: Path, images: Sequence[ImageScore]) -> str:
        """A row of pictures with their scores; of many the first."""
        ordered = sorted(images, key=lambda image: image.file)
        figures = "".join(self._figure(folder, i) for i in ordered[:MAX_PICTURES])
        return f'<div class="shots" tabindex="0">{figures}</div>' if figures else ""

    def _figure(self, folder: Path, image: ImageScore) -> str:
        words = f"{image.prompt[:80]} · seed {image.seed}"
        caption = f"<b>{image.score:.3f}</b> {html.escape(words)}"
        source, why = self._source(folder / image.file)
        if not source:
            return f"<figure><figcaption>{caption} ({why})</figcaption></figure>"
        name = html.escape(image.prompt[:80], quote=True)
        return (
            f'<figure><img alt="{name}" src="{source}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )

    def _source(self, path: Path) -> tuple[str, str]:
        try:
            kind, data = _small(path)
        except OSError as fault:
            _log.info("A picture of the report cannot be read: %s", fault)
            return "", "picture deleted"
        text = base64.b64encode(data).decode()
        if len(text) > self._left:
            self.n_left_out += 1
            return "", "left out, so that the file stays small"
        self._left -= len(text)
        return f"data:image/{kind};base64,{text}", ""


def _small(path: Path) -> tuple[str, bytes]:
    """A picture's kind and bytes, made smaller where it is large.

    Raises:
        OSError: It is gone, or no picture.
    """
    from PIL import Image

    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as picture:
        if len(data) <= MAX_PLAIN_BYTES and max(picture.size) <= THUMB_PX:
            return "png", data
        small = picture.convert("RGB")
    small.thumbnail((THUMB_PX, THUMB_PX))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=82)
    return "jpeg", buffer.getvalue()
