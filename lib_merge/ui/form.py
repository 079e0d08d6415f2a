"""What the merge page's controls say, as values, and the recipe that they stand for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib_merge.arch import detect_architecture
from lib_merge.core.blocks import Architecture, Component
from lib_merge.core.dtypes import DType
from lib_merge.core.method import MergeMethod
from lib_merge.core.params import ParamSpec
from lib_merge.core.ports import Catalog, CheckpointEntry
from lib_merge.core.recipe import Recipe, Setting, simple_recipe
from lib_merge.errors import RecipeError
from lib_merge.methods import methods
from lib_merge.ui.weights import read_rules, read_weights

KEEP = "same as model A"
"""The save type that keeps every tensor's own."""

PARTS: Mapping[str, tuple[Component, ...]] = {
    "UNet": (Component.UNET,),
    "Text encoders": (Component.CLIP_L, Component.CLIP_G, Component.CLIP_H),
    "VAE": (Component.VAE,),
}
"""What may be blended, in words."""

_HASH = re.compile(r" \[[0-9a-f]{8,10}\]$")

DEFAULT_PARTS = ("UNet", "Text encoders")


@dataclass(frozen=True)
class MergeForm:
    """The merge page, read once.

    Attributes:
        method: The method's id.
        models: Titles as chosen, in the method's order; "" where none is chosen.
        values: (parameter, main value) pairs.
        weights: Block weights as text; "" when they are switched off.
        rules: Rules as text.
        compute_dtype: Torch name.
        save_dtype: Torch name, or KEEP.
        parts: Names out of PARTS.
        keep_ema: Whether EMA weights stay.
        is_missing_ok: Whether missing keys come from model A.
    """

    method: str
    models: tuple[str, ...]
    values: tuple[tuple[str, float], ...] = ()
    weights: str = ""
    rules: str = ""
    compute_dtype: str = "float32"
    save_dtype: str = "float16"
    parts: tuple[str, ...] = DEFAULT_PARTS
    keep_ema: bool = False
    is_missing_ok: bool = False

    def missing_models(self) -> tuple[str, ...]:
        """Names of the inputs that nothing is chosen for yet (A, B ...)."""
        wanted = methods().get(self.method).min_models
        chosen = [*self.models, *("",) * (wanted - len(self.models))]
        return tuple(letter(i) for i, title in enumerate(chosen) if not title)


def letter(index: int) -> str:
    """The name of a model by its place: A, B, C ..."""
    return chr(ord("A") + index) if index < 26 else str(index + 1)


def block_param(method: MergeMethod) -> ParamSpec | None:
    """The parameter that block weights and rules set: the first that may vary."""
    return next((spec for spec in method.params if spec.param.per_block), None)


def titles_of(entries: Sequence[CheckpointEntry]) -> dict[str, CheckpointEntry]:
    """Checkpoints by the title to show; equal titles get their folder added.

    A WebUI adds the hash to a title once it knows it. Here titles go without, so that
    what was chosen stays chosen.
    """
    counts = Counter(_plain(entry.title) for entry in entries)
    shown = {}
    for entry in entries:
        title = _plain(entry.title)
        if counts[title] > 1:
            title = f"{title} ({entry.path.parent})"
        shown[title] = entry
    return shown


def _plain(title: str) -> str:
    return _HASH.sub("", title)


def architecture_of(path: Path) -> Architecture:
    """The architecture of a file; its header is read once while it does not change.

    Raises:
        CheckpointError: The file cannot be read, or is of no known architecture.
    """
    from lib_merge.checkpoint.header import read_header

    return detect_architecture(read_header(path).infos, where=str(path))


def recipe_of(form: MergeForm, catalog: Catalog) -> Recipe:
    """The recipe that the form stands for.

    Raises:
        RecipeError: Every problem of the form at once.
        CheckpointError: Model A cannot be read.
    """
    method = methods().get(form.method)
    problems: list[str] = []
    paths = _paths(form, catalog, problems)
    settings = _settings(form, method, paths, problems)
    if not form.parts:
        problems.append("Nothing is chosen to be blended; tick at least the UNet.")
    if problems:
        raise RecipeError(problems)
    keeps_types = form.save_dtype == KEEP
    return simple_recipe(
        form.method,
        tuple(str(path) for path in paths),
        settings,
        components=tuple(c for part in form.parts for c in PARTS[part]),
        compute_dtype=DType.from_name(form.compute_dtype),
        save_dtype=None if keeps_types else DType.from_name(form.save_dtype),
        keep_ema=form.keep_ema,
        is_missing_ok=form.is_missing_ok,
    )


def _paths(form: MergeForm, catalog: Catalog, problems: list[str]) -> list[Path]:
    entries = titles_of(catalog.checkpoints())
    for name in form.missing_models():
        problems.append(f"No model {name} is chosen; choose one from the list.")
    paths = []
    for title in form.models:
        if title and title not in entries:
            problems.append(
                f"The model '{title}' is no longer in the list; refresh the list and "
                "choose again."
            )
        elif title:
            paths.append(entries[title].path)
    return paths


def _settings(
    form: MergeForm,
    method: MergeMethod,
    paths: Sequence[Path],
    problems: list[str],
) -> dict[str, Setting]:
    settings = {name: Setting(value) for name, value in form.values}
    spec = block_param(method)
    if spec is None or not paths or not (form.weights.strip() or form.rules.strip()):
        return settings
    arch = architecture_of(paths[0])
    main = settings.get(spec.name, Setting(spec.default)).value
    try:
        blocks = tuple(read_weights(form.weights, arch, spec).items())
    except RecipeError as fault:
        problems.extend(fault.problems)
        blocks = ()
    try:
        rules = read_rules(form.rules, arch, spec)
    except RecipeError as fault:
        problems.extend(fault.problems)
        rules = ()
    settings[spec.name] = Setting(main, blocks, rules)
    return settings
