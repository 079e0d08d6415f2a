"""Ratings from choices between two pictures (Bradley and Terry), kept on disk."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.autombw._files import read_json, write_bytes, write_json
from lib_merge.errors import ScorerError

if TYPE_CHECKING:
    from PIL.Image import Image

PRIOR_SD = 1.5
"""How far ratings lie from 0 before anybody has chosen."""

MAX_ANCHORS = 8
"""Pictures of one prompt that later ones are compared with."""

_THUMB_PX = 768
_FILE = "ratings.json"


@dataclass(frozen=True)
class Choice:
    """One answer: the opponent's rating, and 1 for won, 0.5 for equal, 0 for lost."""

    opponent: float
    won: float


def rating(choices: Sequence[Choice]) -> float:
    """The most likely rating of a picture after some choices.

    A picture of rating r wins against one of rating s with the chance
    1 / (1 + exp(s - r)); ratings are normal around 0 beforehand (sd `PRIOR_SD`).
    """
    value = 0.0
    for _ in range(50):
        slope, bend = -value / PRIOR_SD**2, -1 / PRIOR_SD**2
        for choice in choices:
            chance = 1 / (1 + math.exp(choice.opponent - value))
            slope += choice.won - chance
            bend -= chance * (1 - chance)
        step = slope / bend
        value -= max(-1.0, min(1.0, step))
        if abs(step) < 1e-10:
            break
    return value


@dataclass(frozen=True)
class Anchor:
    """A rated picture; `data` is the picture itself as a JPEG."""

    prompt: str
    rating: float
    data: bytes

    @property
    def image(self) -> Image:
        """The picture."""
        from PIL import Image

        return Image.open(io.BytesIO(self.data)).convert("RGB")


class Anchors:
    """The rated pictures of every prompt.

    Args:
        folder: Where they are kept, or None for in memory only.

    Raises:
        ScorerError: The folder holds something else.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._by_prompt: dict[str, list[Anchor]] = {}
        if folder is not None:
            self._read(folder)

    def of(self, prompt: str) -> tuple[Anchor, ...]:
        """The anchors of a prompt."""
        return tuple(self._by_prompt.get(prompt, ()))

    def add(self, prompt: str, value: float, image: Image) -> None:
        """Keep a rated picture; of too many the one that tells least goes."""
        anchors = self._by_prompt.setdefault(prompt, [])
        anchors.append(Anchor(prompt, value, _jpeg(image)))
        anchors.sort(key=lambda anchor: anchor.rating)
        if len(anchors) > MAX_ANCHORS:
            gaps = [
                anchors[i + 1].rating - anchors[i - 1].rating
                for i in range(1, len(anchors) - 1)
            ]
            del anchors[1 + gaps.index(min(gaps))]
        if self._folder is not None:
            self._write(self._folder)

    def _read(self, folder: Path) -> None:
        try:
            for one in read_json(folder / _FILE):
                data = (folder / one["file"]).read_bytes()
                anchor = Anchor(one["prompt"], float(one["rating"]), data)
                self._by_prompt.setdefault(anchor.prompt, []).append(anchor)
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as fault:
            raise ScorerError(
                f"{folder / _FILE} is damaged ({fault}); move it away, and ratings "
                "begin anew."
            ) from fault

    def _write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        for anchor in (one for row in self._by_prompt.values() for one in row):
            name = f"{hashlib.sha256(anchor.data).hexdigest()[:16]}.jpg"
            if not (folder / name).exists():
                write_bytes(folder / name, anchor.data, is_alone=False)
            rows.append({"prompt": anchor.prompt, "rating": anchor.rating})
            rows[-1]["file"] = name
        write_json(folder / _FILE, rows)
        kept = {row["file"] for row in rows}
        for path in folder.glob("*.jpg"):
            if path.name not in kept:
                path.unlink()


def _jpeg(image: Image) -> bytes:
    small = image.convert("RGB")
    small.thumbnail((_THUMB_PX, _THUMB_PX))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=92)
    return buffer.getvalue()
