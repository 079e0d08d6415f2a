"""One payload: a prompt, how to render it, and how many pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, fields, replace
from typing import Any

from lib_merge.autombw.prompts import clean_prompt
from lib_merge.autombw.wildcards import NONE, WILDCARD_TYPES
from lib_merge.core.ports import OptionValue, RenderRequest
from lib_merge.core.seeds import derive_seed
from lib_merge.errors import PayloadError

SEED_SPACE = 2**32
"""Seeds are taken modulo this, as the hosts' noise sources want them."""

CLIP_SKIP = "CLIP_stop_at_last_layers"
VAE = "sd_vae"
"""Settings of WebUIs that are fields of a payload here."""

Overrides = tuple[tuple[str, OptionValue], ...]


@dataclass(frozen=True)
class Payload:
    """One payload: a prompt, how to render it, and how many pictures.

    The fields from `prompt` to `reverse_scoring` are those of AutoMBW's payload file;
    those behind are the WebUI's, and change nothing where they are empty or 0. Sizes in
    pixels.

    Attributes:
        name: The file's stem; the study's pictures carry it.
        n_images: batch_size * n_iter pictures, with the seeds seed, seed + 1 ...
        reverse_scoring: The lower the scorer's value, the better.
        wildcard_type: How wildcards in the prompts are drawn; none, if they are not.
        template: What the prompt was drawn from, once it has been drawn.
        negative_template: The same of the negative prompt.
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
    wildcard_type: str = NONE
    reverse_scoring: bool = False
    clip_skip: int = 0
    vae: str = ""
    styles: tuple[str, ...] = ()
    override_settings: Overrides = ()
    hr_prompt: str = ""
    hr_negative_prompt: str = ""
    hr_sampler_name: str = ""
    hr_scheduler: str = ""
    hr_cfg: float = 0.0
    subseed: int = -1
    subseed_strength: float = 0.0
    template: str = ""
    negative_template: str = ""

    @property
    def n_images(self) -> int:
        """Pictures of one pass over this payload."""
        return self.batch_size * self.n_iter

    @property
    def scorer_prompt(self) -> str:
        """The prompt as the scorer reads it."""
        return clean_prompt(self.prompt)

    @property
    def is_drawn(self) -> bool:
        """Whether its prompts are the final ones."""
        return self.wildcard_type == NONE or bool(self.template)

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
        """A plain JSON object; `from_json` gives an equal payload back.

        Fields beyond AutoMBW's that say nothing are left out.
        """
        extra = {f.name: f.default for f in _EXTRA_FIELDS}
        data = {
            name: value
            for name, value in asdict(self).items()
            if name not in extra or value != extra[name]
        }
        if self.override_settings:
            data["override_settings"] = dict(self.override_settings)
        return data

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
        data = lifted(data, where)
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


_EXTRA_FIELDS = fields(Payload)[-13:]
"""From `clip_skip` on."""

_PLAIN = (str, int, float, bool, type(None))


def lifted(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields with clip skip and VAE taken out of override_settings, where they lie.

    Raises:
        PayloadError: override_settings are no settings.
    """
    found = dict(data)
    given = found.get("override_settings") or {}
    if isinstance(given, (list, tuple)):  # as settings.json of a study has them
        given = dict(given)
    if not isinstance(given, dict):
        raise PayloadError(
            f"{where}: 'override_settings' must be an object of settings, not "
            f"{json.dumps(given, default=str)[:60]}."
        )
    settings = dict(given)
    for setting, name in ((CLIP_SKIP, "clip_skip"), (VAE, "vae")):
        if setting in settings:
            found.setdefault(name, settings.pop(setting))
    bad = [key for key, value in settings.items() if not isinstance(value, _PLAIN)]
    if bad:
        raise PayloadError(
            f"{where}: the setting '{bad[0]}' in 'override_settings' must be a text, a "
            "number, true or false."
        )
    if "override_settings" in found:
        switches = {key: settings.pop(key, None) for key in _SWITCHES}
        found.update({k: v for k, v in switches.items() if v is not None})
        found["override_settings"] = tuple(settings.items())
    return found


_SWITCHES = ("sd_model_checkpoint", "forge_additional_modules", "forge_preset")
"""Settings that would load another model than the merge."""


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
    if wanted == "Overrides":
        return value
    if wanted.startswith("tuple") and _is_texts(value):
        return tuple(value)
    noun = {"float": "a number", "int": "a whole number", "str": "a text"}
    if wanted.startswith("tuple"):
        noun[wanted] = "a list of texts"
    raise PayloadError(
        f"{where}: '{field.name}' must be {noun.get(wanted, 'true or false')}, "
        f"not {json.dumps(value, default=str)[:60]}."
    )


def _is_number(value: Any) -> bool:
    is_plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_plain and abs(value) < float("inf")


def _is_texts(value: Any) -> bool:
    is_list = isinstance(value, (list, tuple))
    return is_list and all(isinstance(one, str) for one in value)


_AT_LEAST_ONE = ("steps", "width", "height", "batch_size", "n_iter")


def _check_ranges(payload: Payload, where: str) -> None:
    for name in _AT_LEAST_ONE:
        if getattr(payload, name) < 1:
            raise PayloadError(
                f"{where}: '{name}' is {getattr(payload, name)}; it must be at least 1."
            )
    if payload.wildcard_type not in WILDCARD_TYPES:
        raise PayloadError(
            f"{where}: 'wildcard_type' is '{payload.wildcard_type}'; use one of: "
            f"{', '.join(WILDCARD_TYPES)}."
        )
