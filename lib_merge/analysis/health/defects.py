"""What can be wrong with a checkpoint: kinds of defects, and keys told by name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

N_NAMED = 3
"""So many keys are named in a sentence; the rest are counted."""


class Defect(str, Enum):
    """A kind of defect; its value is what reports and `--keep` call it."""

    DENOISER = "denoiser"
    TEXT_EXTRA = "text_extra"
    NESTED_IDS = "nested_ids"
    LORA = "lora"
    SCHEDULE = "schedule"
    EMA = "ema"
    TRAINING = "training"
    UNKNOWN = "unknown"
    ABSENT = "absent"
    MISSING = "missing"
    MISSHAPEN = "misshapen"
    POSITION_IDS = "position_ids"
    SCALED = "scaled"
    NON_FINITE = "non_finite"
    DEAD = "dead"
    CONSTANT = "constant"

    @property
    def is_extra(self) -> bool:
        """Whether it is about keys that the architecture does not have."""
        return self in _EXTRAS

    @property
    def is_problem(self) -> bool:
        """Whether a user should act on it; else it is worth knowing only."""
        return self not in _HARMLESS

    @property
    def words(self) -> str:
        """What it is, in a few words that follow a number of keys."""
        return _TITLES[self]

    @property
    def remedy(self) -> str:
        """What `repair` does about it, as the end of a sentence."""
        return _REMEDIES[self]


_EXTRAS = frozenset(
    {
        Defect.DENOISER,
        Defect.TEXT_EXTRA,
        Defect.NESTED_IDS,
        Defect.LORA,
        Defect.SCHEDULE,
        Defect.EMA,
        Defect.TRAINING,
        Defect.UNKNOWN,
    }
)
_HARMLESS = frozenset({Defect.SCHEDULE, Defect.EMA, Defect.SCALED, Defect.CONSTANT})

_TITLES = {
    Defect.DENOISER: "of a sampler (denoiser)",
    Defect.TEXT_EXTRA: "that the text encoder does not have (projection, logit scale)",
    Defect.NESTED_IDS: "of position ids in a place that no loader reads",
    Defect.LORA: "of a LoRA that was left in the file",
    Defect.SCHEDULE: "of noise schedule constants",
    Defect.EMA: "of EMA shadow weights",
    Defect.TRAINING: "of a training run (optimizer, loss, step counters)",
    Defect.UNKNOWN: "unknown to the architecture",
    Defect.ABSENT: "absent with the whole component",
    Defect.MISSING: "missing",
    Defect.MISSHAPEN: "of a shape that does not fit",
    Defect.POSITION_IDS: "of position ids that are not int64 0 to 76",
    Defect.SCALED: "of float8 with a scale beside each (scaled fp8)",
    Defect.NON_FINITE: "with NaN or infinity",
    Defect.DEAD: "all zero",
    Defect.CONSTANT: "of one value throughout",
}
_REMEDIES = {
    Defect.DENOISER: "repair leaves it out",
    Defect.TEXT_EXTRA: "repair leaves it out",
    Defect.NESTED_IDS: "repair leaves it out",
    Defect.LORA: "repair leaves it out",
    Defect.SCHEDULE: "repair leaves it out with --drop schedule",
    Defect.EMA: "repair leaves it out",
    Defect.TRAINING: "repair leaves it out",
    Defect.UNKNOWN: "repair leaves it out with --drop unknown",
    Defect.ABSENT: "repair takes it from --base FILE with --fill-components",
    Defect.MISSING: "repair takes it from --base FILE",
    Defect.MISSHAPEN: "repair reshapes it, or takes it from --base FILE",
    Defect.POSITION_IDS: "repair writes int64 0 to 76",
    Defect.SCALED: "convert --to fp16 multiplies them out",
    Defect.NON_FINITE: "repair takes it from --base FILE",
    Defect.DEAD: "repair takes it from --base FILE with --fill-dead",
    Defect.CONSTANT: "nothing is done about it",
}


@dataclass(frozen=True)
class Finding:
    """One kind of defect in one file.

    Attributes:
        defect: What kind.
        keys: Every key that it is about.
        details: A few words for each of those keys, or nothing at all.
    """

    defect: Defect
    keys: tuple[str, ...]
    details: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """A sentence: how many, what, which, and what can be done."""
        noun = "key" if len(self.keys) == 1 else "keys"
        named = list(self.keys[:N_NAMED])
        if self.details:
            named = [
                f"{k} {d}" for k, d in zip(named, self.details[:N_NAMED], strict=True)
            ]
        more = ", ..." if len(self.keys) > N_NAMED else ""
        return (
            f"{len(self.keys)} {noun} {self.defect.words} ({', '.join(named)}{more}); "
            f"{self.defect.remedy}."
        )


_BY_NAME = (
    (Defect.DENOISER, re.compile(r"denoiser\.|.*\bsigmas$")),
    (Defect.LORA, re.compile(r"lora_|lycoris_|.*\.lora_(up|down|A|B)\b|.*\.lora\.")),
    (
        Defect.TEXT_EXTRA,
        re.compile(
            r"(conditioner\.embedders\.\d+|cond_stage_model|text_encoders\.\w+)\."
            r"(.*\.)?(text_projection|logit_scale)(\.weight)?$"
        ),
    ),
    (Defect.NESTED_IDS, re.compile(r".*\bposition_ids$")),
    (
        Defect.TRAINING,
        re.compile(
            r"(optimizer|optimizer_states|lr_schedulers|loss|epoch|global_step|"
            r"callbacks|discriminator|first_stage_model\.loss)(\.|$)"
        ),
    ),
)


def extra_defect(key: str) -> Defect:
    """The kind of a key that the architecture does not have, by its name."""
    for defect, pattern in _BY_NAME:
        if pattern.match(key):
            return defect
    return Defect.UNKNOWN
