"""What the AutoMBW page's lists offer, by what they are called there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lib_merge.autombw.diversity import CONSTRAINT, OBJECTIVE, OFF
from lib_merge.autombw.fidelity import DRAFT, NO_HIRES, Rung
from lib_merge.autombw.payload_formats import SUFFIXES
from lib_merge.autombw.preflight import is_searchable
from lib_merge.autombw.samplers import SAMPLERS as _SAMPLERS
from lib_merge.autombw.scoring import AUTO, KEEP, SIGMOID, UNLOAD, Z_SCORE
from lib_merge.autombw.tournament import POOL, TREE
from lib_merge.autombw.warm_start import SHAPES
from lib_merge.core.method import MergeMethod
from lib_merge.core.runs import Over
from lib_merge.formats.orders import ORDERS
from lib_merge.methods import methods

SAMPLERS: Mapping[str, str] = {info.label: info.id for info in _SAMPLERS.values()}
"""Samplers by label."""

SAMPLER_HELP: Mapping[str, str] = {i.label: i.help for i in _SAMPLERS.values()}

TEXT, EMBEDDINGS, OUTPUT = "Text encoders", "Embeddings", "Output layer"
TRANSFORMER = "Transformer blocks"
GROUPS = (TEXT, EMBEDDINGS, "IN", "M", "OUT", TRANSFORMER, OUTPUT)
"""Groups of blocks that may be searched; an architecture has some of them."""

ALONE = "Every block alone"
TIES: Mapping[str, str] = {
    ALONE: "",
    "IN and OUT mirrored": "symmetric",
    "One value for all IN, one for all OUT": "sides",
}
"""Which blocks share a value, as the language of the search space names it."""

SHAPES_TITLES: Mapping[str, str] = {words: name for name, (words, _) in SHAPES.items()}
"""Usual curves over the blocks, by what they are."""

RUNGS: Mapping[str, Rung] = {
    "Draft: half size, half the steps, no hires pass": DRAFT,
    "Without the hires pass": NO_HIRES,
}
"""Cheap ways to render that may screen trials, the cheapest first."""

DIVERSITY: Mapping[str, str] = {
    "Shown only": OFF,
    "Must keep a share of the parents'": CONSTRAINT,
    "Second aim beside the score": OBJECTIVE,
}
"""What diversity is used for."""

AUTOMATIC = "auto"

NORMALISATIONS: Mapping[str, str] = {
    "As the scorers need it": AUTOMATIC,
    "As AutoMBW does (sigmoid)": SIGMOID,
    "In standard deviations (for several scorers)": Z_SCORE,
}
"""How raw values become scores."""

MEMORY: Mapping[str, str] = {
    "Unload scorers when memory is short": AUTO,
    "Keep scorers in memory": KEEP,
    "Unload scorers while rendering": UNLOAD,
}
"""Where scorers are while the image model works."""

BY_NAME = "named (IN04=0.3, M00=0.5)"
ORDER_TITLES: Mapping[str, str | None] = {
    BY_NAME: None,
    **{f"{len(o.labels)} numbers: {o.title}": o.id for o in ORDERS},
}
"""Orders of numbers without names, by what they are called."""

TOURNAMENTS: Mapping[str, str] = {
    "In pairs, the winners again": TREE,
    "All at once, by one weight each": POOL,
}
"""Ways to make one model of many."""

NO_STUDY = "no study"

PAYLOAD_ENDINGS = SUFFIXES
"""Files that payloads are read from: objects, lists of prompts, pictures."""

CHECK = "Check and time a picture"
SAVE_TRIAL = "Save trial"
LOAD_TRIAL = "Merge and load trial"
"""Titles of jobs that the page shows, whoever starts them."""

LOOKS = ("Trials", "Leaderboard", "Axes", "Pictures")
"""What the page shows of a study."""


def searchable_methods() -> list[MergeMethod]:
    """Methods that a study can search, by label."""
    found = [method for method in methods() if is_searchable(method)]
    return sorted(found, key=lambda method: method.label)


def method_note(method: MergeMethod) -> str:
    """What a study of a method would search, in a sentence."""
    spec = method.block_param
    if spec is None:
        return f"{method.label} has no parameter per block."
    slow = ""
    if method.over is Over.TENSOR:
        slow = " Slow: it works on whole tensors, so that every trial takes long."
    others = ", ".join(
        f"{p.name} {p.text_of(p.default)}" for p in method.params if p is not spec
    )
    fixed = f"; {others}" if others else ""
    return f"{method.formula}: searches {spec.name} ({spec.param.help}){fixed}.{slow}"


def payload_choices(folder: Path) -> dict[str, Path]:
    """Payload files and folders under a folder, by the name to show."""
    choices: dict[str, Path] = {}
    for sub in sorted(path for path in folder.glob("*") if path.is_dir()):
        n_files = sum(is_payload(file) for file in sub.iterdir())
        if n_files:
            choices[f"{sub.name} (folder, {n_files} payloads)"] = sub
    for file in sorted(filter(is_payload, folder.iterdir())):
        choices[file.name] = file
    return choices


def is_payload(path: Path) -> bool:
    """Whether a file has the ending of a payload."""
    return path.is_file() and path.suffix.lower() in PAYLOAD_ENDINGS
