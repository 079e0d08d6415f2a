"""The WebUI's merge metadata, `sd_merge_recipe` and `sd_merge_models`, as one recipe.

A chain of merges is one graph here: A of B of C. Extensions add kinds of their own,
which `supermerger` and `model_mixer` read. The WebUI saved and rounded every step to
a file of its own; one run of the whole graph rounds once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lib_merge.core.dtypes import DType
from lib_merge.core.nodes import MergeNode, ModelNode, Setting
from lib_merge.core.recipe import Recipe
from lib_merge.errors import RecipeError
from lib_merge.formats import model_mixer, supermerger
from lib_merge.formats.graph import Graph, moved
from lib_merge.formats.imported import Entry, Imported, Options
from lib_merge.formats.numbers import number
from lib_merge.formats.orders import WHOLE
from lib_merge.formats.source import Source
from lib_merge.formats.webui_models import Models

ID = "webui"
TITLE = "WebUI merge metadata"

_MAX_MODELS = 20_000

Build = Callable[["Step", Models, Options], int]


@dataclass
class Step:
    """One merge of the chain.

    Attributes:
        data: Its `sd_merge_recipe`.
        name: What it made.
        inputs: Keys of the models that it names, by its own names for them.
        nodes: Node of each input, once all are there.
    """

    data: Mapping[str, Any]
    name: str
    inputs: dict[str, str | None] = field(default_factory=dict)
    nodes: dict[str, int] = field(default_factory=dict)


def sniff(source: Source) -> bool:
    """Whether there is an `sd_merge_recipe` of somebody else's."""
    recipe = source.tag("sd_merge_recipe")
    return recipe is not None and recipe.get("type") != "mergelab"


def read(source: Source, options: Options) -> Imported:
    """The chain as one recipe.

    Raises:
        RecipeError: The last step cannot be said in MergeLab, or a step is a part of
            itself.
    """
    root = source.tag("sd_merge_recipe") or {}
    data = source.tag("sd_merge_models") or {}
    if len(data) > _MAX_MODELS:
        raise RecipeError([f"{source.name} lists {len(data)} models, too many."])
    models = Models.of(data, Graph(WHOLE))
    name = str(root.get("custom_name") or source.name)
    index = _Chain(models, options).root(root, name)
    is_half = root.get("save_as_half", True) is not False
    entry = Entry(
        name,
        models.graph.recipe(index, save_dtype=DType.F16 if is_half else None),
        facts=(("kind", str(root.get("type", "?"))[:80]),),
    )
    if any(one.recipe for one in models.by_hash.values()):
        models.note(
            "Every step of the chain was rounded to its file; a run rounds once."
        )
    return Imported(
        ID,
        TITLE,
        (entry,),
        tuple(models.notes),
        (*models.unknown, *models.idle()),
    )


class _Chain:
    """Walks a chain of merges without recursion: chains are hundreds of steps deep."""

    def __init__(self, models: Models, options: Options) -> None:
        self._models = models
        self._options = options
        self._done: dict[str, int] = {}

    def root(self, data: Mapping[str, Any], name: str) -> int:
        """The node of the last step, after everything that it is made of."""
        step = _step(data, name, self._models)
        for key in step.inputs.values():
            if key is not None:
                self._walk(key)
        return self._build(step)

    def _walk(self, first: str) -> None:
        waiting = [first]
        open_keys: set[str] = set()
        while waiting:
            key = waiting[-1]
            if key in self._done:
                waiting.pop()
                continue
            self._models.used.add(key)
            listed = self._models.by_hash.get(key)
            if listed is None or listed.recipe is None:
                self._done[key] = self._models.leaf(key)
                continue
            step = _step(listed.recipe, listed.name, self._models)
            inner = [k for k in step.inputs.values() if k is not None]
            missing = [k for k in inner if k not in self._done]
            if not missing:
                self._done[key] = self._nested(step, key)
                open_keys.discard(key)
                continue
            if key in open_keys:
                raise RecipeError(
                    [
                        f"The merge {listed.name} ({key[:10]}) is a part of itself, "
                        "which no file can be; the metadata is damaged."
                    ]
                )
            open_keys.add(key)
            waiting += reversed(missing)

    def _nested(self, step: Step, key: str) -> int:
        """A step inside the chain; what cannot be said stays a file."""
        try:
            return self._build(step)
        except RecipeError as fault:
            self._models.note(f"{step.name} is taken as a file: {fault}")
            return self._models.leaf(key)

    def _build(self, step: Step) -> int:
        for what, key in step.inputs.items():
            if key is None:
                step.nodes[what] = self._models.missing(what, step.name)
            else:
                self._models.used.add(key)
                step.nodes[what] = self._done[key]
        return _BUILDERS[_kind(step.data)](step, self._models, self._options)


def _kind(data: Mapping[str, Any]) -> str:
    kind = str(data.get("type", "webui"))
    if kind not in _BUILDERS:
        raise RecipeError(
            [
                f"Merges of the kind {kind!r:.60} are not known; known: "
                f"{', '.join(_BUILDERS)}."
            ]
        )
    return kind


def _step(data: Mapping[str, Any], name: str, models: Models) -> Step:
    kind = data.get("type", "webui")
    if kind == "sd-webui-supermerger":
        wanted = supermerger.inputs_of(data)
    elif kind == "sd-webui-model-mixer":
        wanted = model_mixer.inputs_of(data)
    elif kind == "mergelab":
        wanted = {}
    else:
        wanted = _inputs_of(data)
    return Step(data, name, {what: models.named(key) for what, key in wanted.items()})


_USED = {
    "No interpolation": ("primary",),
    "Weighted sum": ("primary", "secondary"),
    "Add difference": ("primary", "secondary", "tertiary"),
}


def _inputs_of(data: Mapping[str, Any]) -> dict[str, object]:
    used = _USED.get(str(data.get("interp_method")), ("primary",))
    return {f"{what} model": data.get(f"{what}_model_hash") for what in used}


def _build_webui(step: Step, models: Models, options: Options) -> int:
    method = str(step.data.get("interp_method"))
    if method not in _USED:
        raise RecipeError(
            [
                f"{step.name}: interp_method {method!r:.60} is not known; it should be "
                f"one of {', '.join(_USED)}."
            ]
        )
    nodes = list(step.nodes.values())
    _note_extras(step, models)
    if method == "No interpolation":
        return nodes[0]
    alpha = Setting(number(step.data.get("multiplier"), f"{step.name}, multiplier"))
    name = "weighted_sum" if method == "Weighted sum" else "add_difference"
    return models.graph.merge(name, nodes, [("alpha", alpha)])


def _note_extras(step: Step, models: Models) -> None:
    vae = step.data.get("bake_in_vae")
    if vae not in (None, "None", ""):
        models.note_unknown(
            f"{step.name} had the VAE file {vae!r:.80} baked in, which is not repeated."
        )
    discard = step.data.get("discard_weights")
    if discard:
        models.note_unknown(
            f"{step.name} dropped the weights {discard!r:.80}, which is not repeated."
        )


def _build_mergelab(step: Step, models: Models, options: Options) -> int:
    """A step that MergeLab made: its own recipe, node by node."""
    recipe = Recipe.from_json(step.data.get("recipe"))
    places: dict[int, int] = {}
    for old, node in enumerate(recipe.nodes):
        places[old] = models.graph.add(moved(node, places))
        if isinstance(node, ModelNode) and node.sha256:
            models.used.add(node.sha256)
    return places[len(recipe.nodes) - 1]


_BUILDERS: dict[str, Build] = {
    "webui": _build_webui,
    "sd-webui-supermerger": supermerger.build,
    "sd-webui-model-mixer": model_mixer.build,
    "mergelab": _build_mergelab,
}


def write(recipe: Recipe) -> str:
    """Metadata as the WebUI's own merger leaves it, as a JSON file.

    Raises:
        RecipeError: A step that its merger does not have, block weights, or a file
            whose hash is not known.
    """
    return json.dumps({"__metadata__": _Writer(recipe).metadata()}, indent=1) + "\n"


class _Writer:
    """Says a recipe in the WebUI's words; a step inside gets a hash of its own text."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._keys: list[str] = []
        self._models: dict[str, Any] = {}

    def metadata(self) -> dict[str, Any]:
        problems: list[str] = []
        last = len(self._recipe.nodes) - 1
        root: dict[str, Any] = {}
        for index, node in enumerate(self._recipe.nodes):
            if isinstance(node, ModelNode):
                self._add_model(node, problems)
                continue
            said = self._said(index, problems)
            if index == last:
                root = said
            text = json.dumps(said, sort_keys=True)
            key = _digest(text)
            self._keys.append(key)
            if index != last:
                name = f"step {index}.safetensors"
                self._models[key] = {
                    "name": name,
                    "legacy_hash": None,
                    "sd_merge_recipe": {**said, "custom_name": name},
                }
        if not root:
            problems.append("The recipe merges nothing; there is nothing to say.")
        if problems:
            raise RecipeError(problems)
        return {"sd_merge_recipe": root, "sd_merge_models": self._models}

    def _add_model(self, node: ModelNode, problems: list[str]) -> None:
        if node.sha256 is None:
            problems.append(
                f"The WebUI knows models by hash, and the one of {node.path} is not "
                "known; run the merge once, or find the models with --models DIR."
            )
        key = node.sha256 or ""
        self._keys.append(key)
        self._models[key] = {
            "name": node.path,
            "legacy_hash": None,
            "sd_merge_recipe": None,
        }

    def _said(self, index: int, problems: list[str]) -> dict[str, Any]:
        node = self._recipe.nodes[index]
        words = {"weighted_sum": "Weighted sum", "add_difference": "Add difference"}
        if not isinstance(node, MergeNode) or node.method not in words:
            problems.append(
                f"Node {index}: the WebUI's merger has weighted sums and added "
                "differences only; write this recipe as mergelab or mecha."
            )
            return {}
        default = 0.5 if node.method == "weighted_sum" else 1.0
        alpha = dict(node.params).get("alpha", Setting(default))
        if alpha.blocks or alpha.rules:
            problems.append(f"Node {index}: the WebUI's merger has no block weights.")
        if set(node.components) != set(WHOLE):
            problems.append(
                f"Node {index}: the WebUI's merger blends everything, the VAE too; "
                f"this merge only {', '.join(c.value for c in node.components)}."
            )
        keys = [self._keys[i] for i in node.inputs]
        tertiary = keys[2] if len(keys) > 2 else None
        return {
            "type": "webui",
            "primary_model_hash": keys[0],
            "secondary_model_hash": keys[1],
            "tertiary_model_hash": tertiary,
            "interp_method": words[node.method],
            "multiplier": alpha.value,
            "save_as_half": self._recipe.save_dtype is DType.F16,
            "custom_name": "",
            "config_source": 0,
            "bake_in_vae": "None",
            "discard_weights": "",
            "is_inpainting": False,
            "is_instruct_pix2pix": False,
        }


def _digest(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()
