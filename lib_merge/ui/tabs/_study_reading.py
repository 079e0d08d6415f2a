"""Reads the AutoMBW page's controls: the set-up as one form, small texts as numbers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lib_merge.errors import InputError
from lib_merge.methods import methods
from lib_merge.ui import study_choices as offers
from lib_merge.ui import widgets
from lib_merge.ui.study_form import StudyForm
from lib_merge.ui.study_judges import scorer_labels
from lib_merge.ui.tabs._study_controls import StudyControls


def form_of(
    page: StudyControls, values: dict[Any, Any], payload_dir: Path
) -> StudyForm:
    """The controls' values as one form.

    Args:
        page: Whose controls.
        values: By control.
        payload_dir: Where the payloads lie that are offered.

    Raises:
        InputError: What stands where a number belongs is none.
    """
    method = widgets.method_by_label(values[page.method])
    known = offers.payload_choices(payload_dir)
    n_models = methods().get(method.id).min_models
    study = str(values[page.start_study] or "")

    def text(control: Any) -> str:
        return str(values[control] or "").strip()

    def files(control: Any) -> tuple[Path, ...]:
        chosen = values[control] or ()
        return tuple(known[name] for name in chosen if name in known)

    def number(control: Any) -> int:
        return int(values[control] or 0)

    return StudyForm(
        name=text(page.name) or time.strftime("study-%Y%m%d-%H%M%S"),
        method=method.id,
        models=tuple(str(values[box] or "") for box in page.singles[:n_models]),
        payloads=files(page.payloads),
        held_out_payloads=files(page.held_out_payloads),
        n_trials=number(page.n_trials),
        n_seeds=number(page.n_seeds),
        seed=number(page.seed),
        sampler=offers.SAMPLERS[values[page.sampler]],
        scorers=scorers_of(page, values),
        judge_lines=text(page.judge_lines),
        tally=str(values[page.tally]),
        normalise=offers.NORMALISATIONS[values[page.normalise]],
        memory=offers.MEMORY[values[page.memory]],
        groups=tuple(values[page.groups] or ()),
        ties=str(values[page.ties]),
        space=text(page.space),
        shapes=tuple(offers.SHAPES_TITLES[w] for w in values[page.shapes] or ()),
        start_text=text(page.start_text),
        start_order=offers.ORDER_TITLES[values[page.start_order]],
        start_study="" if study == offers.NO_STUDY else study,
        start_trial=trial_of(text(page.start_trial)),
        is_pruned=bool(values[page.is_pruned]),
        p_threshold=float(values[page.p_threshold] or 0),
        n_first=number(page.n_first),
        rungs=tuple(values[page.rungs] or ()),
        diversity=offers.DIVERSITY[values[page.diversity]],
        diversity_keep=float(values[page.diversity_keep] or 0),
        hours=float(values[page.hours] or 0),
        n_without_gain=number(page.n_without_gain),
        target=score_of(text(page.target)),
        max_failures=number(page.max_failures),
        n_held_out=number(page.n_held_out),
        n_finalists=number(page.n_finalists),
        held_out_share=float(values[page.held_out_share] or 0),
        precision=str(values[page.precision]),
        save_dtype=str(values[page.save_dtype]),
        is_saved=bool(values[page.is_saved]),
    )


def scorers_of(page: StudyControls, values: dict[Any, Any]) -> tuple[str, ...]:
    """Ids of the chosen scorers."""
    labels = scorer_labels()
    chosen = values[page.scorers] or ()
    return tuple(labels[label] for label in chosen if label in labels)


def named(name: str | None) -> str:
    """The chosen study's name.

    Raises:
        InputError: None is chosen.
    """
    if not name:
        raise InputError("No study is chosen; start one or choose one.")
    return name


def trial_of(text: str) -> int | None:
    """A trial's number as typed; None for an empty text, the best.

    Raises:
        InputError: It is no number.
    """
    if not text.strip():
        return None
    if not text.strip().isdigit():
        raise InputError(f"'{text}' is no trial's number; leave it empty for the best.")
    return int(text)


def score_of(text: str) -> float | None:
    """A score as typed; None for an empty text.

    Raises:
        InputError: It is no number.
    """
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise InputError(
            f"'{text}' is no score; leave it empty, or write 0.7."
        ) from None


def paths_of(files: Any) -> list[Path]:
    """Uploaded files; Gradio 3 gives open files, later ones give paths."""
    found: list[Any] = files if isinstance(files, list) else [files]
    return [Path(str(getattr(f, "name", f))) for f in found if f]
