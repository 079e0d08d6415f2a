"""What the AutoMBW page's controls say, and the study settings that they stand for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_merge.arch import architectures
from lib_merge.autombw.axes import SearchedSpace
from lib_merge.autombw.diversity import DiversitySettings
from lib_merge.autombw.fidelity import FidelitySettings
from lib_merge.autombw.payloads import (
    Payload,
    read_payloads,
    read_reported,
    split_payloads,
)
from lib_merge.autombw.preflight import new_settings
from lib_merge.autombw.pruning import PruningSettings
from lib_merge.autombw.rescoring import natural_normalisation
from lib_merge.autombw.scoring import ScoringSettings
from lib_merge.autombw.space import StartPoint
from lib_merge.autombw.stopping import StoppingSettings
from lib_merge.autombw.study import StudySettings
from lib_merge.autombw.warm_start import clean, shape_starts
from lib_merge.core.method import MergeMethod
from lib_merge.core.ports import Host
from lib_merge.errors import MergeError, PayloadError, RecipeError
from lib_merge.methods import methods
from lib_merge.ui.form import architecture_of, input_name, titles_of
from lib_merge.ui.guard import problems_of
from lib_merge.ui.study_choices import ALONE, AUTOMATIC, GROUPS, RUNGS
from lib_merge.ui.study_judges import read_judges
from lib_merge.ui.study_space import earlier_starts, searched, text_start

if TYPE_CHECKING:
    from lib_merge.autombw.study import Study

FindStudy = Callable[[str], "Study"]
"""Gives a study by its name."""


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
        scorers: The scorers' ids.
        tally: How a trial's scores become one.
        judge_lines: Weight, file and options of scorers, a line each.
        normalise: How raw values become scores.
        memory: Where scorers are while pictures are rendered.
        groups: Names out of GROUPS that are searched; the others stay with A.
        ties: Which blocks share a value, out of TIES.
        space: What else is searched, bounded or fixed, as text.
        shapes: Usual curves that are tried first, by their ids.
        start_text: A start vector, or "".
        start_order: The order of its numbers, or None.
        start_study: A study whose trial is tried first, or "".
        start_trial: That trial, or None for the best.
        is_pruned: Whether hopeless trials are given up.
        p_threshold: How sure that must be.
        n_first: Pictures before it is judged.
        rungs: Names out of RUNGS.
        diversity: What diversity is used for.
        diversity_keep: The share of the parents' diversity that must be kept.
        hours: Working time at most, or 0.
        n_without_gain: Trials without a gain that end the search, or 0.
        target: A score that is enough, or None.
        max_failures: Failed attempts in a row that stop it.
        n_held_out: Passes over the payloads with unseen seeds.
        n_finalists: Trials that are scored on them.
        held_out_payloads: Files and folders for the finalists only.
        held_out_share: Share of the payloads that is kept for the finalists, or 0.
        precision: What merges compute in.
        save_dtype: What merged tensors are rounded to, or "keep".
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
    scorers: tuple[str, ...]
    tally: str = "arithmetic"
    judge_lines: str = ""
    normalise: str = AUTOMATIC
    memory: str = "auto"
    groups: tuple[str, ...] = GROUPS
    ties: str = ALONE
    space: str = ""
    shapes: tuple[str, ...] = ()
    start_text: str = ""
    start_order: str | None = None
    start_study: str = ""
    start_trial: int | None = None
    is_pruned: bool = True
    p_threshold: float = 0.1
    n_first: int = 4
    rungs: tuple[str, ...] = ()
    diversity: str = "off"
    diversity_keep: float = 0.9
    hours: float = 0.0
    n_without_gain: int = 27
    target: float | None = None
    max_failures: int = 5
    n_held_out: int = 2
    n_finalists: int = 5
    held_out_payloads: tuple[Path, ...] = ()
    held_out_share: float = 0.0
    precision: str = "float32"
    save_dtype: str = "float16"
    is_saved: bool = False


def settings_of(
    form: StudyForm,
    host: Host,
    *,
    find_study: FindStudy | None = None,
    is_noted: bool = True,
) -> StudySettings:
    """The settings that the form stands for.

    Args:
        form: The form.
        host: Whose catalog the titles are of.
        find_study: Gives studies to start from.
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
        raise RecipeError(problems)
    found = _searched(form, method, paths[:1], problems)
    payloads, held_out = _split(form, payloads, problems, is_noted=is_noted)
    further = _policies(form, problems)
    if problems:
        raise RecipeError(problems)
    settings = new_settings(
        form.name.strip(),
        form.method,
        [str(path) for path in paths],
        payloads=payloads,
        held_out_payloads=held_out,
        param=spec.name,
        checkpoint=_checkpoint(form, host),
        n_trials=form.n_trials,
        n_seeds=form.n_seeds,
        n_held_out=form.n_held_out,
        n_finalists=form.n_finalists,
        seed=form.seed,
        tally=form.tally,
        max_failures=form.max_failures,
        compute_dtype=form.precision,
        save_dtype=form.save_dtype,
        **further,
    )
    assert found is not None
    present = {r.block for r in settings.ranges}
    settings = replace(
        settings,
        ranges=tuple(r for r in found.ranges if r.block in present),
        axes=found.axes,
        methods=found.methods,
        sampler=form.sampler,
    )
    return replace(settings, starts=_starts(form, settings, find_study))


def _searched(
    form: StudyForm, method: MergeMethod, first: Sequence[Path], problems: list[str]
) -> SearchedSpace | None:
    """What is searched, over the first model's architecture."""
    if not first:
        return None
    try:
        arch = architecture_of(first[0])
        return searched(form.groups, form.ties, form.space, method=method, arch=arch)
    except MergeError as fault:
        problems.extend(problems_of(fault))
        return None


def _split(
    form: StudyForm,
    payloads: tuple[Payload, ...],
    problems: list[str],
    *,
    is_noted: bool,
) -> tuple[tuple[Payload, ...], tuple[Payload, ...]]:
    """What is searched with, and what is kept for the finalists."""
    held_out: tuple[Payload, ...] = ()
    if form.held_out_payloads:
        held_out = _payloads(form.held_out_payloads, problems, is_noted=is_noted)
    if form.held_out_share and payloads:
        try:
            payloads, kept = split_payloads(payloads, form.held_out_share, form.seed)
            held_out = (*held_out, *kept)
        except PayloadError as fault:
            problems.append(str(fault))
    return payloads, held_out


def _policies(form: StudyForm, problems: list[str]) -> dict[str, Any]:
    """How it judges, prunes, screens and stops; what is wrong goes to `problems`."""
    hours = form.hours
    try:
        return {
            **_judges(form),
            "pruning": PruningSettings(form.is_pruned, form.p_threshold, form.n_first),
            "fidelity": FidelitySettings(
                tuple(rung for name, rung in RUNGS.items() if name in form.rungs)
            ),
            "diversity": DiversitySettings(form.diversity, form.diversity_keep),
            "stopping": StoppingSettings(
                form.n_without_gain, hours * 3600 if hours else None, form.target
            ),
        }
    except MergeError as fault:
        problems.extend(problems_of(fault))
        return {}


def _judges(form: StudyForm) -> dict[str, Any]:
    """One scorer as the study's own, several as judges."""
    judges = read_judges(form.scorers, form.judge_lines)
    first = judges[0]
    normalise = form.normalise
    if normalise == AUTOMATIC:
        normalise = natural_normalisation(judges)
    scoring = ScoringSettings(judges, normalise=normalise, memory=form.memory)
    if len(judges) == 1 and not first.options and first.weight == 1.0:
        scoring = replace(scoring, judges=())
    return {
        "scorer": first.id,
        "scorer_weights": first.weights_file,
        "scoring": scoring,
    }


def _starts(
    form: StudyForm, settings: StudySettings, find: FindStudy | None
) -> tuple[StartPoint, ...]:
    """The points that are scored after the baselines."""
    arch = architectures().get(settings.arch_id)
    starts = [*shape_starts(settings.space, arch, form.shapes)]
    if form.start_text.strip():
        starts.append(text_start(form.start_text, form.start_order, settings, arch))
    if form.start_study and find is not None:
        earlier = find(form.start_study)
        starts += earlier_starts(earlier, form.start_trial, settings)
    return clean(settings.space, starts)


def study_outlook(settings: StudySettings) -> str:
    """What the study will do, in a sentence or two."""
    sizes = sorted({f"{p.width}x{p.height}" for p in settings.payloads})
    n_free = len(settings.space.free)
    n_payloads = len(settings.payloads)
    payloads = "1 payload" if n_payloads == 1 else f"{n_payloads} payloads"
    n_images = settings.n_images * settings.n_trials
    n_final = settings.n_held_out_images * (settings.n_finalists + 3)
    blocks = "blocks" if n_free == len(settings.ranges) else "axes"
    return (
        f"Searches {n_free} {blocks} in {settings.n_trials} trials, "
        f"{settings.n_images} pictures each ({payloads}, {', '.join(sizes)}): at most "
        f"{n_images} pictures, then up to {n_final} on unseen seeds for the best "
        f"{settings.n_finalists}, both parents and the 0.5 merge. Nothing is written "
        "to the models; what is loaded now is put back at the end."
    )


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
        return read_payloads(paths) if is_noted else read_reported(paths)[0]
    except PayloadError as fault:
        problems.append(str(fault))
        return ()


def payload_notes(paths: Sequence[Path]) -> tuple[str, ...]:
    """What was unknown, absent or without effect in payload files that can be read."""
    _, reports = read_reported(paths)
    return tuple(sentence for report in reports for sentence in report.sentences())


def _checkpoint(form: StudyForm, host: Host) -> str | None:
    if not form.is_saved:
        return None
    stem = re.sub(r"[^\w.-]+", "_", form.name.strip())
    return str(host.catalog.output_dir() / f"{stem}.safetensors")
