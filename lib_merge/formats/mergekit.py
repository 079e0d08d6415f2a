"""mergekit's YAML recipes, where they speak of whole checkpoints.

Slices, layer ranges and gradients over layers are of language models and are refused.
Where mergekit computes something else than MergeLab under the same name, the notes say
so, or the recipe is refused if the difference is not one of rounding or of draws.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lib_merge.core.dtypes import SAVE_DTYPES, DType
from lib_merge.core.recipe import Rule, Setting
from lib_merge.errors import InputError, RecipeError
from lib_merge.formats.graph import Graph, Params
from lib_merge.formats.imported import Entry, Imported, Options
from lib_merge.formats.mergekit_text import load, looks_like_mergekit
from lib_merge.formats.mergekit_write import write
from lib_merge.formats.numbers import flag, number
from lib_merge.formats.orders import WHOLE
from lib_merge.formats.source import Source
from lib_merge.methods._ops.consensus import Elect
from lib_merge.methods._ops.stack import Combine, Drop, Trim

__all__ = ["ID", "TITLE", "read", "sniff", "write"]

ID = "mergekit"
TITLE = "mergekit recipe"

_MAX_MODELS = 5000
_KNOWN = (
    *("merge_method", "base_model", "dtype", "out_dtype", "models", "parameters"),
    *("tokenizer", "tokenizer_source", "chat_template", "name"),
)


def sniff(source: Source) -> bool:
    """Whether a text has mergekit's one required field."""
    return looks_like_mergekit(source.text)


def read(source: Source, options: Options) -> Imported:
    """One recipe.

    Raises:
        RecipeError: What cannot be read, or merged as it stands.
    """
    config = _Config(load(source.text, source.name), source.name)
    run = _METHODS.get(config.method)
    if run is None:
        raise RecipeError(
            [
                f"{source.name}: the merge_method {config.method[:40]!r} has no "
                f"counterpart; read are {', '.join(sorted(_METHODS))}."
            ]
        )
    node = run(config)
    recipe = config.graph.recipe(node, save_dtype=config.save_dtype())
    entry = Entry(source.name, recipe, facts=(("method", config.method),))
    unknown = ("The models are known by path only; the file holds no hashes.",)
    return Imported(ID, TITLE, (entry,), tuple(config.notes), unknown)


@dataclass
class _Config:
    """A recipe's fields."""

    data: Mapping[str, Any]
    where: str
    graph: Graph = field(default_factory=lambda: Graph(WHOLE))
    notes: list[str] = field(default_factory=list)
    models: list[tuple[int, Mapping[str, Any]]] = field(default_factory=list)
    base: int | None = None

    def __post_init__(self) -> None:
        odd = [key for key in self.data if key not in _KNOWN]
        if odd:
            raise RecipeError(
                [
                    f"{self.where}: '{odd[0][:40]}' speaks of a language model's "
                    "layers; MergeLab reads recipes of whole models ('models:')."
                ]
            )
        if self.data.get("base_model"):
            self.base = self._model(self.data["base_model"])
        listed = self.data.get("models")
        if not isinstance(listed, list) or not 0 < len(listed) <= _MAX_MODELS:
            raise RecipeError([f"{self.where}: 'models' must list the models."])
        for one in listed:
            if not isinstance(one, dict):
                raise RecipeError([f"{self.where}: an entry of 'models' has no model."])
            params = one.get("parameters") or {}
            if not isinstance(params, dict) or "layer_range" in one:
                raise RecipeError([f"{self.where}: layer ranges are not read."])
            self.models.append((self._model(one.get("model")), params))

    @property
    def method(self) -> str:
        """Its merge_method."""
        return str(self.data.get("merge_method"))

    def _model(self, value: Any) -> int:
        if isinstance(value, dict):
            value = value.get("path") or value.get("model")
            if isinstance(value, dict):
                value = value.get("path")
        if not isinstance(value, str) or not value.strip() or "+" in value:
            raise RecipeError([f"{self.where}: {value!r:.60} is no path of a model."])
        return self.graph.model(value.strip())

    def save_dtype(self) -> DType | None:
        """The type that is written."""
        name = self.data.get("out_dtype") or self.data.get("dtype")
        if not name:
            return None
        try:
            found = DType.from_name(str(name))
        except InputError as fault:
            raise RecipeError([f"{self.where}: {fault}"]) from fault
        return found if found in SAVE_DTYPES else None

    def others(self) -> list[tuple[int, Mapping[str, Any]]]:
        """Models but the base."""
        return [one for one in self.models if one[0] != self.base]

    def inputs(self) -> tuple[int, ...]:
        """Base first, then the others.

        Raises:
            RecipeError: No base, or nothing but it.
        """
        if self.base is None:
            raise RecipeError([f"{self.where}: {self.method} needs a base_model."])
        nodes = [node for node, _ in self.others()]
        if not nodes:
            raise RecipeError([f"{self.where}: there is no model besides the base."])
        return (self.base, *nodes)

    def shared(self, name: str, default: float | None) -> Setting:
        """A parameter of the whole recipe.

        Raises:
            RecipeError: It is not given, or cannot be read.
        """
        params = self.data.get("parameters") or {}
        value = params.get(name) if isinstance(params, dict) else None
        if value is None and default is not None:
            return Setting(default)
        return self._setting(value, name)

    def switch(self, name: str, default: bool) -> bool:
        """A switch of the whole recipe."""
        params = self.data.get("parameters")
        if not isinstance(params, dict) or name not in params:
            return default
        return flag(params[name])

    def each(
        self,
        name: str,
        default: float | None,
        models: list[tuple[int, Mapping[str, Any]]],
    ) -> list[Setting]:
        """A parameter of every model; the recipe's own one fills in."""
        found = []
        for _, params in models:
            value = params.get(name)
            if value is None:
                found.append(self.shared(name, default))
            else:
                found.append(self._setting(value, name))
        return found

    def one(self, name: str, default: float | None) -> Setting:
        """A parameter that MergeLab has once, not for every model.

        Raises:
            RecipeError: The models have different ones.
        """
        found = self.each(name, default, self.others())
        if len(set(found)) > 1:
            raise RecipeError(
                [
                    f"{self.where}: every model has a {name} of its own, which "
                    f"MergeLab's {self.method} does not take."
                ]
            )
        return found[0]

    def _setting(self, value: Any, name: str) -> Setting:
        where = f"{self.where}, {name}"
        if isinstance(value, str):
            return Setting(number(value, where))
        conditions = [value] if isinstance(value, dict) else value
        is_list = isinstance(conditions, list) and all(
            isinstance(one, dict) for one in conditions
        )
        if not is_list or not conditions:
            raise RecipeError(
                [f"{where}: a number is wanted, not a gradient over layers."]
            )
        default = None
        rules: list[Rule] = []
        for one in conditions:
            amount = number(one.get("value"), where)
            pattern = one.get("filter")
            if pattern in (None, "*"):
                default = amount
                break
            rules.append(Rule(amount, (), re.escape(str(pattern))))
        if default is None:
            raise RecipeError([f"{where}: a last value without a filter is wanted."])
        # The first that fits wins there, the last one here.
        return Setting(default, (), tuple(reversed(rules)))


def _weights(config: _Config, settings: list[Setting]) -> Params:
    """Weights by model; one for all where they are equal."""
    if len(set(settings)) == 1:
        one = settings[0]
        return [] if one == Setting(1.0) else [("weight", one)]
    return [(f"weight@{i}", one) for i, one in enumerate(settings, 1)]


def _linear(config: _Config) -> int:
    weights = config.each("weight", None, config.models)
    total = sum(one.value for one in weights)
    is_plain = not any(one.rules for one in weights)
    is_whole = is_plain and abs(total - 1.0) < 1e-9
    if not config.switch("normalize", True) and not is_whole:
        raise RecipeError(
            [
                f"{config.where}: weights that are not normalised and add up to "
                f"{total:g} have no counterpart; make them add up to 1."
            ]
        )
    nodes = [node for node, _ in config.models]
    if len(set(weights)) == 1:
        return config.graph.merge("uniform_soup", nodes)
    return config.graph.merge("weighted_mean", nodes, _weights(config, weights))


def _slerp(config: _Config) -> int:
    inputs = config.inputs()
    if len(inputs) != 2:
        raise RecipeError([f"{config.where}: slerp takes the base and one model."])
    config.notes.append(
        "mergekit's slerp does not set the length between those of the two models, and "
        "MergeLab's does; they differ where the lengths do."
    )
    return config.graph.merge("slerp", inputs, [("alpha", config.shared("t", None))])


def _nuslerp(config: _Config) -> int:
    inputs = config.inputs()
    weights = [one.value for one in config.each("weight", None, config.others())]
    if (
        len(inputs) != 3
        or not sum(weights)
        or not config.switch("nuslerp_flatten", True)
    ):
        raise RecipeError(
            [f"{config.where}: nuslerp is read with a base, two models and flattening."]
        )
    alpha = Setting(weights[1] / sum(weights))
    return config.graph.merge("nuslerp", inputs, [("alpha", alpha)])


def _task_arithmetic(config: _Config) -> int:
    weights = config.each("weight", None, config.others())
    lam = config.shared("lambda", 1.0)
    if config.switch("normalize", False):
        total = sum(one.value for one in weights)
        if not total or any(one.rules for one in weights) or lam.rules:
            raise RecipeError([f"{config.where}: these weights cannot be normalised."])
        lam = Setting(lam.value / total)
    params = [*_weights(config, weights), *_lam(lam, "lam", 1.0)]
    return config.graph.merge("task_arithmetic", config.inputs(), params)


def _lam(setting: Setting, name: str, default: float) -> Params:
    return [] if setting == Setting(default) else [(name, setting)]


def _stacked(
    *,
    drop: Drop = Drop.NONE,
    trim: Trim = Trim.NONE,
    is_elected: bool,
    is_normalised: bool = False,
) -> Callable[[_Config], int]:
    """A reader for one of mergekit's family of task-vector methods."""

    def run(config: _Config) -> int:
        weights = config.each("weight", None, config.others())
        params: list[tuple[str, Setting]] = []
        density = config.one("density", 1.0)
        if trim is not Trim.NONE and density != Setting(1.0):
            params += [("trim", Setting(float(trim))), ("density", density)]
            if trim is Trim.BREADCRUMBS:
                params.append(("outliers", config.one("gamma", 0.01)))
        if drop is not Drop.NONE and density != Setting(1.0):
            params += _drop(config, drop, density)
        if is_elected:
            _check_votes(config, weights)
            params.append(("elect", Setting(float(Elect.MAGNITUDE))))
        is_mean = config.switch("normalize", is_normalised)
        mean = Combine.DISJOINT_MEAN if is_elected else Combine.MEAN
        combine = mean if is_mean else Combine.SUM
        if combine is not Combine.MEAN:
            params.append(("combine", Setting(float(combine))))
        lam = config.shared("lambda", 1.0)
        params += [*_weights(config, weights), *_lam(lam, "lam", 1.0)]
        return config.graph.merge("stack", config.inputs(), params)

    return run


def _drop(config: _Config, drop: Drop, density: Setting) -> list[tuple[str, Setting]]:
    if density.rules:
        raise RecipeError([f"{config.where}: density must be one number here."])
    config.notes.append(
        "Values are dropped at random: MergeLab draws other ones than mergekit. "
        "Rescaling divides by the keep probability; mergekit's restores the sum of "
        "magnitudes."
    )
    rate = Setting(1.0 - density.value)
    params = [("drop", Setting(float(drop))), ("drop_rate", rate)]
    if drop is Drop.MAGNITUDE:
        config.notes.append("mergekit ranks magnitudes by row, MergeLab by tensor.")
        epsilon = config.one("epsilon", 0.15)
        params.append(("epsilon", Setting(2.0 * epsilon.value)))
    if config.switch("rescale", True):
        params.append(("rescale", Setting(1.0)))
    return params


def _check_votes(config: _Config, weights: list[Setting]) -> None:
    if len(set(weights)) > 1:
        raise RecipeError(
            [
                f"{config.where}: in mergekit weights take part in the election of "
                "signs, in MergeLab they do not; give every model the same weight."
            ]
        )
    config.notes.append(
        "Where the votes on a sign are even, mergekit elects plus; MergeLab returns to "
        "the base."
    )


def _model_stock(config: _Config) -> int:
    if config.switch("filter_wise", False):
        raise RecipeError([f"{config.where}: filter_wise has no counterpart."])
    return config.graph.merge("model_stock", config.inputs(), [("clamp", Setting(0.0))])


def _karcher(config: _Config) -> int:
    return config.graph.merge("karcher_mean", [node for node, _ in config.models])


def _sce(config: _Config) -> int:
    density = config.shared("select_topk", 1.0)
    return config.graph.merge("sce", config.inputs(), [("density", density)])


def _passthrough(config: _Config) -> int:
    if len(config.models) != 1 or config.models[0][1]:
        raise RecipeError([f"{config.where}: passthrough is read for one model alone."])
    return config.models[0][0]


_METHODS: dict[str, Callable[[_Config], int]] = {
    "linear": _linear,
    "slerp": _slerp,
    "nuslerp": _nuslerp,
    "task_arithmetic": _task_arithmetic,
    "ties": _stacked(trim=Trim.TOP, is_elected=True, is_normalised=True),
    "dare_linear": _stacked(drop=Drop.RANDOM, is_elected=False),
    "dare_ties": _stacked(drop=Drop.RANDOM, is_elected=True),
    "della": _stacked(drop=Drop.MAGNITUDE, is_elected=True, is_normalised=True),
    "della_linear": _stacked(drop=Drop.MAGNITUDE, is_elected=False),
    "breadcrumbs": _stacked(trim=Trim.BREADCRUMBS, is_elected=False),
    "breadcrumbs_ties": _stacked(trim=Trim.BREADCRUMBS, is_elected=True),
    "model_stock": _model_stock,
    "karcher": _karcher,
    "sce": _sce,
    "passthrough": _passthrough,
}
