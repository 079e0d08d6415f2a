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
from lib_merge.core.ports import Catalog, CheckpointEntry
from lib_merge.core.recipe import NonFinite, Recipe
from lib_merge.errors import RecipeError
from lib_merge.formats.block_text import Scope, read_blocks, read_rules, settings_of
from lib_merge.formats.request import MergeRequest, Step, recipe_of_request
from lib_merge.formats.step_text import StepReader
from lib_merge.formats.value_text import read_numbers, read_value, split_numbers
from lib_merge.methods import methods

KEEP = "same as the first model"
"""The save type that keeps every tensor's own."""

PARTS: Mapping[str, tuple[Component, ...]] = {
    "UNet": (Component.UNET,),
    "Text encoders": tuple(part for part in Component if part.is_text_encoder),
    "VAE": (Component.VAE,),
}
"""What may be blended, in words."""

_HASH = re.compile(r" \[[0-9a-f]{8,10}\]$")

DEFAULT_PARTS = ("UNet", "Text encoders")


NON_FINITE: Mapping[str, NonFinite] = {
    "Stop and say where": NonFinite.STOP,
    "Leave that model out of a pool": NonFinite.LEAVE_OUT,
    "Keep them": NonFinite.KEEP,
}
"""What happens where a model itself holds NaN or infinity, in words."""


@dataclass(frozen=True)
class MergeForm:
    """The merge page, read once.

    Attributes:
        method: The method's id.
        models: Titles as chosen, in the method's order; "" where none is chosen.
        values: (parameter, main value) pairs.
        each: (parameter, numbers as text) pairs, one number for each model of the pool.
        weights: Block weights as text; "" when they are switched off.
        rules: Rules as text.
        steps: Other methods and models for parts, as text.
        compute_dtype: Torch name.
        save_dtype: Torch name, or KEEP.
        parts: Names out of PARTS.
        keep_ema: Whether EMA weights stay.
        is_missing_ok: Whether models may lack keys.
        non_finite: A name out of NON_FINITE.
    """

    method: str
    models: tuple[str, ...]
    values: tuple[tuple[str, float], ...] = ()
    each: tuple[tuple[str, str], ...] = ()
    weights: str = ""
    rules: str = ""
    steps: str = ""
    compute_dtype: str = "float32"
    save_dtype: str = "float16"
    parts: tuple[str, ...] = DEFAULT_PARTS
    keep_ema: bool = False
    is_missing_ok: bool = False
    non_finite: str = next(iter(NON_FINITE))

    def missing_models(self) -> tuple[str, ...]:
        """Names of inputs that nothing is chosen for yet (the base, model A ...)."""
        method = methods().get(self.method)
        chosen = [*self.models, *("",) * (method.min_models - len(self.models))]
        return tuple(
            input_name(method, i) for i, title in enumerate(chosen) if not title
        )


def letter(index: int) -> str:
    """The name of a model by its place: A, B, C ..."""
    return chr(ord("A") + index) if index < 26 else str(index + 1)


def input_name(method: MergeMethod, index: int) -> str:
    """What a model of a method is called: "the base", "model B", "the pool"."""
    specs = method.inputs
    spec = specs[min(index, len(specs) - 1)]
    if spec.is_pool:
        return "any model of the pool"
    if spec.name == "base":
        return "the base"
    is_letter = len(spec.name) == 1
    n_before = sum(other.name != "base" for other in specs[:index])
    return f"model {spec.name.upper() if is_letter else letter(n_before)}"


def input_symbol(method: MergeMethod, index: int) -> str:
    """What a model is called in a list: base, A, B, 1, 2 ..."""
    if index >= method.n_single:
        return str(index - method.n_single + 1)
    return input_name(method, index).rpartition(" ")[2]


def block_settings(method: MergeMethod, n_pool: int) -> list[str]:
    """Settings that the block editor can show, the one for unnamed blocks first.

    Args:
        method: Whose parameters are meant.
        n_pool: Models of the pool; each has its own weight@1, weight@2 ...
    """
    found: list[str] = []
    for spec in method.block_params:
        if spec.param.per_model:
            found += [f"{spec.name}@{i + 1}" for i in range(n_pool)]
        elif not spec.param.choices:
            found.append(spec.name)
    main = method.block_param
    return sorted(found, key=lambda name: main is None or name != main.name)


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
        CheckpointError: The first model cannot be read.
    """
    problems: list[str] = []
    entries = titles_of(catalog.checkpoints())
    paths = _paths(form, entries, problems)
    request = _request(form, paths, entries, problems)
    if not form.parts:
        problems.append("Nothing is chosen to be blended; tick at least the UNet.")
    if problems:
        raise RecipeError(problems)
    keeps_types = form.save_dtype == KEEP
    return recipe_of_request(
        request,
        compute_dtype=DType.from_name(form.compute_dtype),
        save_dtype=None if keeps_types else DType.from_name(form.save_dtype),
        keep_ema=form.keep_ema,
        is_missing_ok=form.is_missing_ok,
        on_non_finite=NON_FINITE[form.non_finite],
    )


def read_main_values(form: MergeForm, problems: list[str]) -> dict[str, float]:
    """Main values by setting; those of single models as weight@1, weight@2 ...

    Args:
        form: The form.
        problems: Gets a sentence for every number that cannot be used.
    """
    method = methods().get(form.method)
    n_pool = max(0, len(form.models) - method.n_single)
    values = dict(form.values)
    for name, text in form.each:
        spec = method.param(name)
        if spec is None or not text.strip():
            continue
        if len(split_numbers(text)) == 1 and n_pool > 1:
            value = read_value(text.strip(" ,;"), spec, name, problems)
            values |= {} if value is None else {name: value}
        else:
            values |= read_numbers(text, spec, n_pool, name, problems)
    return values


def _paths(
    form: MergeForm, entries: Mapping[str, CheckpointEntry], problems: list[str]
) -> list[Path]:
    for name in form.missing_models():
        bare = name.removeprefix("the ").removeprefix("any ")
        problems.append(f"No {bare} is chosen; choose one from the list.")
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


def _request(
    form: MergeForm,
    paths: Sequence[Path],
    entries: Mapping[str, CheckpointEntry],
    problems: list[str],
) -> MergeRequest:
    method = methods().get(form.method)
    values = read_main_values(form, problems)
    texts = (form.weights, form.rules, form.steps)
    arch = None
    if paths and any(text.strip() for text in texts):
        arch = architecture_of(paths[0])
    scope = Scope(method, arch)
    blocks = read_blocks([form.weights], scope, "Block weights", problems)
    rules = read_rules(form.rules.splitlines(), scope, "Rule", problems)
    files = {title: str(entry.path) for title, entry in entries.items()}
    reader = StepReader(methods().get, files.get, arch)
    steps = reader.steps(form.steps.splitlines(), "Step", problems)
    settings = settings_of(values, blocks, rules, method)
    return MergeRequest(
        main=Step(method, tuple(settings.items())),
        models=tuple(str(path) for path in paths),
        components=tuple(c for part in form.parts for c in PARTS[part]),
        then=steps.then,
        parts=steps.parts,
        takes=steps.takes,
    )
