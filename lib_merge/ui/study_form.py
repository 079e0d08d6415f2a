"""What the AutoMBW page's controls say, and the study settings that they stand for."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lib_merge.autombw.payloads import Payload, read_payload, read_payloads
from lib_merge.autombw.preflight import is_searchable, new_settings
from lib_merge.autombw.space import BlockRange
from lib_merge.autombw.study import StudySettings
from lib_merge.core.blocks import Architecture, Block, Component
from lib_merge.core.method import MergeMethod
from lib_merge.core.params import ParamSpec
from lib_merge.core.ports import Host
from lib_merge.core.runs import Over
from lib_merge.errors import MergeError, PayloadError, RecipeError
from lib_merge.methods import methods
from lib_merge.ui.form import architecture_of, input_name, titles_of
from lib_merge.ui.guard import problems_of

SAMPLERS: Mapping[str, str] = {
    "Gaussian process": "gp",
    "TPE": "tpe",
    "CMA-ES": "cmaes",
    "Random": "random",
}
"""Samplers by what they are called here."""

GROUPS = ("Text encoders", "Embeddings", "IN", "M", "OUT", "Output layer")
"""Groups of blocks that may be searched."""

_LIMITS = re.compile(r"^(?P<name>[^=]+)=(?P<low>[^=]+?)(\.\.(?P<high>[^=]+))?$")


@dataclass(frozen=True)
class StudyForm:
    """The set-up of a study, read once.

    Attributes:
        name: The study's name.
        method: The method's id.
        models: Titles, in the method's order; "" where none is chosen.
        payloads: Files and folders.
        n_trials: Points to try.
        n_seeds: Passes over the payloads a trial.
        seed: Of the sampler, and of payloads with a random seed.
        sampler: The sampler's id.
        tally: How a trial's scores become one.
        scorer: The scorer's id.
        scorer_weights: A file, or "" for the scorer's own.
        groups: Names out of GROUPS that are searched; the others stay with A.
        limits: "IN00-IN05=0.2..0.8, M00=0.5" as text.
        is_saved: Whether the winner is saved as a checkpoint at the end.
    """

    name: str
    method: str
    models: tuple[str, ...]
    payloads: tuple[Path, ...]
    n_trials: int
    n_seeds: int
    seed: int
    sampler: str
    scorer: str
    tally: str = "arithmetic"
    scorer_weights: str = ""
    groups: tuple[str, ...] = GROUPS
    limits: str = ""
    is_saved: bool = False


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


def settings_of(form: StudyForm, host: Host, *, is_noted: bool = True) -> StudySettings:
    """The settings that the form stands for.

    Args:
        form: The form.
        host: Whose catalog the titles are of.
        is_noted: Whether what is odd in payload files goes to the log; not while the
            user is still choosing.

    Raises:
        RecipeError: Every problem of the form at once.
        MergeError: Model A or a payload cannot be read.
    """
    method = methods().get(form.method)
    spec = method.block_param
    problems: list[str] = []
    entries = titles_of(host.catalog.checkpoints())
    known = {title: entry.path for title, entry in entries.items()}
    paths = _model_paths(form, method, known, problems)
    payloads = _payloads(form.payloads, problems, is_noted=is_noted)
    if not form.name.strip():
        problems.append("The study has no name; type one.")
    if spec is None:
        problems.append(f"{method.label} has no parameter to search per block.")
    ranges = _ranges(form, spec, paths[:1], problems)
    if problems or spec is None:
        raise RecipeError(problems)
    settings = new_settings(
        form.name.strip(),
        form.method,
        [str(path) for path in paths],
        payloads=payloads,
        param=spec.name,
        scorer=form.scorer,
        scorer_weights=form.scorer_weights.strip() or None,
        sampler=form.sampler,
        tally=form.tally,
        n_trials=form.n_trials,
        n_seeds=form.n_seeds,
        seed=form.seed,
        checkpoint=_checkpoint(form, host),
    )
    present = {r.block for r in settings.ranges}
    return replace(settings, ranges=tuple(r for r in ranges if r.block in present))


def read_ranges(
    groups: Sequence[str], limits: str, arch: Architecture, spec: ParamSpec
) -> tuple[BlockRange, ...]:
    """The search space: ticked groups from 0 to 1, the others fixed at A, then limits.

    Args:
        groups: Names out of GROUPS.
        limits: "IN00-IN05=0.2..0.8" bounds blocks, "M00=0.5" fixes one.
        arch: Whose blocks are meant.
        spec: The searched parameter, for its limits.

    Raises:
        RecipeError: One sentence for every part of `limits` that cannot be used.
    """
    top = min(1.0, spec.param.high)
    ranges = {
        block.id: BlockRange(block.id, 0.0, top if _group(block) in groups else 0.0)
        for block in arch.weighted_blocks()
    }
    problems: list[str] = []
    for part in (p.strip() for p in re.split(r"[,;\n]+", limits) if p.strip()):
        found = _LIMITS.match(part)
        names = arch.expand(found["name"]) if found else ()
        bounds = _bounds(found["low"], found["high"]) if found else None
        if bounds is None or not names:
            problems.append(
                f"Limits: '{part}' cannot be read; write IN00-IN05=0.2..0.8 to bound "
                f"blocks of {arch.label}, or M00=0.5 to fix one."
            )
            continue
        low, high = bounds
        if not spec.param.low <= low <= high <= spec.param.high:
            problems.append(
                f"Limits: '{part}' must lie, in rising order, within "
                f"{spec.param.low:g} to {spec.param.high:g}."
            )
            continue
        ranges |= {n: BlockRange(n, low, high) for n in names if n in ranges}
    if problems:
        raise RecipeError(problems)
    return tuple(ranges.values())


def payload_choices(folder: Path) -> dict[str, Path]:
    """Payload files and folders under a folder, by the name to show."""
    choices: dict[str, Path] = {}
    for sub in sorted(path for path in folder.glob("*") if path.is_dir()):
        n_files = len(list(sub.glob("*.json")))
        if n_files:
            choices[f"{sub.name} (folder, {n_files} payloads)"] = sub
    for file in sorted(folder.glob("*.json")):
        choices[file.name] = file
    return choices


def study_outlook(settings: StudySettings) -> str:
    """What the study will do, in a sentence or two."""
    sizes = sorted({f"{p.width}x{p.height}" for p in settings.payloads})
    n_free = sum(not r.is_fixed for r in settings.ranges)
    n_payloads = len(settings.payloads)
    payloads = "1 payload" if n_payloads == 1 else f"{n_payloads} payloads"
    n_images = settings.n_images * settings.n_trials
    n_final = settings.n_held_out_images * (settings.n_finalists + 3)
    return (
        f"Searches {n_free} blocks in {settings.n_trials} trials, {settings.n_images} "
        f"pictures each ({payloads}, {', '.join(sizes)}): {n_images} pictures, then up "
        f"to {n_final} on unseen seeds for the best {settings.n_finalists}, both "
        "parents and the 0.5 merge. Nothing is written to the models; what is loaded "
        "now is put back at the end."
    )


def _ranges(
    form: StudyForm,
    spec: ParamSpec | None,
    first: Sequence[Path],
    problems: list[str],
) -> tuple[BlockRange, ...]:
    """The search space over the first model's architecture, once there is one."""
    if not first or spec is None:
        return ()
    try:
        arch = architecture_of(first[0])
        return read_ranges(form.groups, form.limits, arch, spec)
    except MergeError as fault:
        problems.extend(problems_of(fault))
        return ()


def _model_paths(
    form: StudyForm,
    method: MergeMethod,
    known: Mapping[str, Path],
    problems: list[str],
) -> list[Path]:
    paths = []
    for index in range(method.min_models):
        title = form.models[index] if index < len(form.models) else ""
        if not title:
            name = input_name(method, index).removeprefix("the ")
            problems.append(f"No {name} is chosen; choose one.")
        elif title not in known:
            problems.append(
                f"The model '{title}' is no longer in the list; refresh the list and "
                "choose again."
            )
        else:
            paths.append(known[title])
    if len(paths) > 1 and paths[0] == paths[1]:
        problems.append(
            f"The first two models are both '{form.models[0]}', so there is nothing to "
            "search; choose two different ones."
        )
    return paths


def _payloads(
    paths: Sequence[Path], problems: list[str], *, is_noted: bool
) -> tuple[Payload, ...]:
    if not paths:
        problems.append("No payload is chosen; choose or upload at least one.")
        return ()
    try:
        if is_noted:
            return read_payloads(paths)
        return tuple(read_payload(file)[0] for file in _files(paths))
    except PayloadError as fault:
        problems.append(str(fault))
        return ()


def _files(paths: Sequence[Path]) -> list[Path]:
    found = (sorted(p.glob("*.json")) if p.is_dir() else [p] for p in paths)
    return [file for files in found for file in files]


def payload_notes(paths: Sequence[Path]) -> tuple[str, ...]:
    """What was unknown, absent or without effect in payload files that can be read."""
    return tuple(note for file in _files(paths) for note in read_payload(file)[1])


def _checkpoint(form: StudyForm, host: Host) -> str | None:
    if not form.is_saved:
        return None
    stem = re.sub(r"[^\w.-]+", "_", form.name.strip())
    return str(host.catalog.output_dir() / f"{stem}.safetensors")


def _group(block: Block) -> str:
    if block.component.is_text_encoder:
        return "Text encoders"
    if block.component is not Component.UNET:
        return ""
    number = re.match(r"^(IN|M|OUT)\d+$", block.id)
    if number:
        return number[1]
    return "Output layer" if block.id == "OUT" else "Embeddings"


def _bounds(low: str, high: str | None) -> tuple[float, float] | None:
    try:
        first = float(low)
        last = first if high is None else float(high)
    except ValueError:
        return None
    return (first, last) if math.isfinite(first) and math.isfinite(last) else None
