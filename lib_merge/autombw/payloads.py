"""Payloads: what a study renders, read from AutoMBW's payload files as they are."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from lib_merge.autombw.prompts import clean_prompt
from lib_merge.core.ports import RenderRequest
from lib_merge.core.seeds import derive_seed
from lib_merge.errors import PayloadError

_log = logging.getLogger(__name__)

SEED_SPACE = 2**32
"""Seeds are taken modulo this, as the hosts' noise sources want them."""


@dataclass(frozen=True)
class Payload:
    """One payload: a prompt, how to render it, and how many pictures.

    The fields from `prompt` on are those of the payload file; sizes in pixels.

    Attributes:
        name: The file's stem; the study's pictures carry it.
        n_images: batch_size * n_iter pictures, with the seeds seed, seed + 1 ...
        reverse_scoring: The lower the scorer's value, the better.
        wildcard_type: Kept as read; wildcards are not expanded.
    """

    name: str
    prompt: str
    negative_prompt: str = ""
    seed: int = -1
    steps: int = 20
    cfg_scale: float = 7.0
    width: int = 512
    height: int = 512
    sampler_name: str = "Euler"
    scheduler: str = "Automatic"
    batch_size: int = 1
    n_iter: int = 1
    enable_hr: bool = False
    denoising_strength: float = 0.7
    firstphase_width: int = 0
    firstphase_height: int = 0
    hr_scale: float = 2.0
    hr_upscaler: str = "Latent"
    hr_second_pass_steps: int = 0
    hr_resize_x: int = 0
    hr_resize_y: int = 0
    restore_faces: bool = False
    tiling: bool = False
    wildcard_type: str = "none"
    reverse_scoring: bool = False

    @property
    def n_images(self) -> int:
        """Pictures of one pass over this payload."""
        return self.batch_size * self.n_iter

    @property
    def scorer_prompt(self) -> str:
        """The prompt as the scorer reads it."""
        return clean_prompt(self.prompt)

    def with_fixed_seed(self, study_seed: int) -> Payload:
        """The same payload; a negative ("random") seed becomes one derived seed."""
        if self.seed >= 0:
            return self
        return replace(self, seed=derive_seed("payload", self.name, study_seed))

    def requests(self, seed_offset: int = 0) -> list[RenderRequest]:
        """One render request a picture.

        Args:
            seed_offset: Added to every seed; other offsets give other pictures.
        """
        first = self.with_fixed_seed(0).seed + seed_offset
        seeds = [(first + i) % SEED_SPACE for i in range(self.n_images)]
        return [self._request(seed) for seed in seeds]

    def _request(self, seed: int) -> RenderRequest:
        names = [f.name for f in fields(RenderRequest) if f.name != "seed"]
        return RenderRequest(seed=seed, **{name: getattr(self, name) for name in names})

    def to_json(self) -> dict[str, Any]:
        """A plain JSON object; `from_json` gives an equal payload back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any, *, where: str, name: str | None = None) -> Payload:
        """Read one payload object.

        Args:
            data: The parsed JSON.
            where: The file, for messages.
            name: Its name, unless the object holds one.

        Raises:
            PayloadError: No object, no prompt, or a field of the wrong type or range.
        """
        if not isinstance(data, dict):
            raise PayloadError(
                f"{where} holds {type(data).__name__}, not a payload; a payload file "
                "is one JSON object with a 'prompt'."
            )
        known = {field.name: field for field in fields(cls)}
        values = {
            key: _checked(known[key], value, where)
            for key, value in data.items()
            if key in known
        }
        values["name"] = values.get("name") or name or "payload"
        if not str(values.get("prompt", "")).strip():
            raise PayloadError(f"{where} has no 'prompt'; add one.")
        payload = cls(**values)
        _check_ranges(payload, where)
        return payload


def _checked(field: Field[Any], value: Any, where: str) -> Any:
    """The value in the field's type, or one clear error."""
    wanted = str(field.type)
    if wanted == "float" and _is_number(value):
        return float(value)
    if wanted == "int" and _is_number(value) and float(value).is_integer():
        return int(value)
    if wanted == "bool" and isinstance(value, bool):
        return value
    if wanted == "str" and isinstance(value, str):
        return value
    noun = {"float": "a number", "int": "a whole number", "str": "a text"}
    raise PayloadError(
        f"{where}: '{field.name}' must be {noun.get(wanted, 'true or false')}, "
        f"not {json.dumps(value, default=str)[:60]}."
    )


def _is_number(value: Any) -> bool:
    is_plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_plain and abs(value) < float("inf")


_AT_LEAST_ONE = ("steps", "width", "height", "batch_size", "n_iter")


def _check_ranges(payload: Payload, where: str) -> None:
    for name in _AT_LEAST_ONE:
        if getattr(payload, name) < 1:
            raise PayloadError(
                f"{where}: '{name}' is {getattr(payload, name)}; it must be at least 1."
            )


def notes_on(data: Any, where: str) -> tuple[str, ...]:
    """What a reader should know of a payload object that was read: nothing is silent.

    Args:
        data: The parsed JSON object.
        where: The file, for the sentences.
    """
    known = {f.name: f for f in fields(Payload) if f.name != "name"}
    notes = []
    unknown = sorted(set(data) - set(known) - {"name"})
    if unknown:
        notes.append(f"{where}: unknown fields are ignored: {', '.join(unknown)}.")
    absent = [
        f"{name} = {field.default!r}"
        for name, field in known.items()
        if name not in data and field.default is not MISSING and name != "scheduler"
    ]
    if absent:
        notes.append(f"{where}: absent fields take defaults: {', '.join(absent)}.")
    if data.get("wildcard_type", "none") != "none":
        notes.append(f"{where}: wildcards are not expanded; the prompt stays as it is.")
    if data.get("firstphase_width") or data.get("firstphase_height"):
        notes.append(f"{where}: firstphase_width and _height have no effect any more.")
    return tuple(notes)


def read_payloads(paths: Iterable[Path | str]) -> tuple[Payload, ...]:
    """Read payload files; a folder stands for every *.json in it, by name.

    What is unknown, absent or without effect is logged as a warning.

    Args:
        paths: Files and folders.

    Raises:
        PayloadError: A file is missing or wrong, two have one name, or there is none.
    """
    payloads: list[Payload] = []
    for path in _files(paths):
        payload, notes = read_payload(path)
        for note in notes:
            _log.warning("%s", note)
        payloads.append(payload)
    if not payloads:
        raise PayloadError("No payload file was given; choose at least one .json file.")
    _check_names(payloads)
    return tuple(payloads)


def read_payload(path: Path) -> tuple[Payload, tuple[str, ...]]:
    """Read one payload file.

    Returns:
        The payload, and sentences on what was unknown, absent or without effect.

    Raises:
        PayloadError: It is missing, no JSON, or a field is wrong.
    """
    if path.suffix.lower() != ".json":
        raise PayloadError(f"{path} is no .json file; save the payload as JSON.")
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as fault:
        raise PayloadError(
            f"{path} cannot be read ({fault.strerror}); choose another payload file."
        ) from fault
    except ValueError as fault:
        raise PayloadError(
            f"{path} is no JSON: {fault}. Correct or export it again."
        ) from fault
    payload = Payload.from_json(data, where=str(path), name=path.stem)
    return replace(payload, name=path.stem), notes_on(data, str(path))


def _files(paths: Iterable[Path | str]) -> list[Path]:
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(path.glob("*.json"))
            if not inside:
                raise PayloadError(f"The folder {path} holds no .json payload file.")
            found.extend(inside)
        else:
            found.append(path)
    return found


def _check_names(payloads: Sequence[Payload]) -> None:
    names = [payload.name for payload in payloads]
    for name in names:
        if names.count(name) > 1:
            raise PayloadError(
                f"Two payload files are named '{name}'; rename one, because pictures "
                "and scores are told apart by it."
            )
