"""AutoMBW's files as recipes: recipe.txt, `sd_mbwrt_recipe`, trial CSV, history.tsv.

AutoMBW blends the UNet alone; text encoders, VAE and everything else stay model A's.
A table of trials names no models; a recipe.txt and the history name them without hash.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from lib_merge.core.block_orders import CSV_ORDER, RECIPE_TXT_ORDER
from lib_merge.core.blocks import BlockId, Component
from lib_merge.core.recipe import DEFAULT_COMPONENTS, ModelNode, Recipe, Setting
from lib_merge.errors import RecipeError
from lib_merge.formats.autombw_csv import (
    N_WEIGHTS,
    parse_csv,
    parse_history,
    parse_recipe_txt,
)
from lib_merge.formats.imported import Entry, Imported, Options, blend
from lib_merge.formats.orders import Order, find_order, split_weights
from lib_merge.formats.pairs import pair_of
from lib_merge.formats.source import Source

ID = "autombw"
TITLE = "AutoMBW recipe"

_TAG = "sd_mbwrt_recipe"
_SEQUENCE = "[*sl_INPUT, *sl_MID, *sl_OUTPUT, sl_OUT, sl_TIME_EMBED]"
_EXTRA = re.compile(r"([A-Z][A-Z0-9_]*)=([-+0-9.eE]+)")
_THIRD = re.compile(r"^modelC=", re.MULTILINE)
_SCORE = re.compile(r"Best score:\s*([-+0-9.eE]+)")
_UNET: tuple[Component, ...] = (Component.UNET,)
_NO_HASH = "The models are known by name only; the file holds no hashes."


def sniff(source: Source) -> bool:
    """Whether metadata has AutoMBW's tag, or a text begins as its files do."""
    if source.tag(_TAG) is not None:
        return True
    first = source.text[:4000].lstrip().partition("\n")[0].strip()
    is_table = first.startswith(("0,1,2,3,", "datetime\tcurrent_pass\t"))
    return is_table or first.startswith("modelA=")


def read(source: Source, options: Options) -> Imported:
    """One recipe, every trial (the best first), or every merge of a history.

    Raises:
        RecipeError: A model or the weights are missing, or are in no known order.
        InputError: A row or a line cannot be read.
    """
    reading = _Reading(source, options)
    tag = source.tag(_TAG)
    if tag is not None:
        return reading.tag(tag)
    text = source.text.lstrip()
    if text.startswith("datetime"):
        return reading.history()
    return reading.recipe() if text.startswith("modelA=") else reading.trials()


@dataclass
class _Reading:
    """One file being read."""

    source: Source
    options: Options
    notes: list[str] = field(default_factory=list)

    def order(self, usual: str) -> Order:
        found = find_order(N_WEIGHTS, self.options.order, self.source.name, usual=usual)
        note = f"Block weights in the order {found.id}: {found.title}."
        if note not in self.notes:
            self.notes.append(note)
        return found

    def setting(
        self, named: Mapping[str, float], written: tuple[BlockId, ...], usual: str
    ) -> Setting:
        """The weights, by the order that the user knows better if one is given."""
        numbers = [named[block] for block in written]
        is_sdxl = self.options.arch == "sdxl"
        return self.order(usual).setting(numbers, is_sdxl=is_sdxl)

    def tag(self, tag: Mapping[str, object]) -> Imported:
        numbers = split_weights(str(tag.get("mbwrt_weights", "")), "mbwrt_weights")
        sequence = tag.get("mbwrt_weights_seq")
        if sequence is None:
            self.notes.append("The weights name no order; the usual one is assumed.")
        elif sequence != _SEQUENCE and self.options.order is None:
            raise RecipeError(
                [
                    f"mbwrt_weights_seq is {str(sequence)[:80]!r}, which MergeLab does "
                    "not know; say the order with --order."
                ]
            )
        order = find_order(
            len(numbers), self.options.order, "mbwrt_weights", usual="autombw_recipe"
        )
        weights = order.setting(numbers, is_sdxl=self.options.arch == "sdxl")
        self.notes.append(f"Block weights in the order {order.id}: {order.title}.")
        names = [str(tag[key]) for key in ("modelA", "modelB") if tag.get(key)]
        facts = {k: str(tag[k]) for k in ("position_id_fix", "output_mode") if k in tag}
        return self._one(names, str(tag.get("modelO") or ""), weights, facts)

    def recipe(self) -> Imported:
        text = self.source.text
        if _THIRD.search(text):
            raise RecipeError(
                [f"{self.source.name} has more than two models, which are not read."]
            )
        said = parse_recipe_txt(text, self.source.name)
        weights = self.setting(said.weights, RECIPE_TXT_ORDER, "autombw_recipe")
        components = _UNET
        head = text.splitlines()[:64]
        pairs = [m for m in map(_EXTRA.fullmatch, (line.strip() for line in head)) if m]
        if pairs:
            more = tuple(
                (BlockId(m[1]), v) for m in pairs for v in split_weights(m[2], m[1])
            )
            weights = Setting(0.0, (*more, *weights.blocks))
            components = DEFAULT_COMPONENTS
        facts = dict(said.fields)
        score = _SCORE.search(text)
        if score:
            facts["best score"] = score[1]
        return self._one(list(said.models), said.output, weights, facts, components)

    def _one(
        self,
        names: list[str],
        output: str,
        weights: Setting,
        facts: Mapping[str, str],
        components: tuple[Component, ...] = _UNET,
    ) -> Imported:
        if len(names) != 2 or not all(names):
            raise RecipeError(
                [f"{self.source.name} must name modelA and modelB; it cannot be run."]
            )
        if facts.get("position_id_fix", "Keep Original") != "Keep Original":
            self.notes.append("position_id_fix was on, which is not repeated.")
        bare = Entry(output or self.source.name, None, weights, components)
        recipe = blend((ModelNode(names[0]), ModelNode(names[1])), bare)
        entry = Entry(bare.name, recipe, facts=tuple(facts.items()))
        return Imported(ID, TITLE, (entry,), tuple(self.notes), (_NO_HASH,))

    def trials(self) -> Imported:
        run = parse_csv(self.source.text, self.source.name)
        ranked = sorted(range(len(run.trials)), key=lambda i: -run.trials[i].score)
        entries = []
        for place, number in enumerate(ranked):
            trial = run.trials[number]
            weights = self.setting(trial.weights, CSV_ORDER, "autombw_csv")
            facts = (("score", repr(trial.score)), ("trial", str(number)))
            name = "best" if place == 0 else f"trial {number}"
            entries.append(Entry(name, None, weights, _UNET, facts))
        n_trials, best = len(run.trials), ranked[0]
        self.notes.append(
            f"{n_trials} trials; the best is number {best}, counted from 0, with "
            f"{run.trials[best].score!r}; {n_trials - 1 - best} came after it."
        )
        if run.eval_seconds is not None:
            self.notes.append(
                f"{run.eval_seconds / 3600:.1f} h of evaluation, "
                f"{run.eval_seconds / n_trials:.0f} s a trial."
            )
        unknown = ("The table names no models; give them with --inputs A B.",)
        title = "AutoMBW table of trials"
        return Imported(ID, title, tuple(entries), tuple(self.notes), unknown)

    def history(self) -> Imported:
        entries = []
        for number, row in enumerate(
            parse_history(self.source.text, self.source.name), 1
        ):
            weights = self.setting(row.weights, CSV_ORDER, "autombw_csv")
            bare = Entry(f"{number} {row.output}".strip(), None, weights, _UNET)
            models = (ModelNode(row.models[0]), ModelNode(row.models[1]))
            facts = tuple((k, v) for k, v in row.fields.items() if v and k != "weights")
            entries.append(Entry(bare.name, blend(models, bare), facts=facts))
        if not entries:
            raise RecipeError([f"{self.source.name} holds no merge."])
        title = "AutoMBW history"
        return Imported(ID, title, tuple(entries), tuple(self.notes), (_NO_HASH,))


def write(recipe: Recipe) -> str:
    """A recipe.txt.

    Raises:
        RecipeError: Not a weighted sum of two files by UNet blocks of SD1.
    """
    pair = pair_of(recipe, TITLE)
    other = [block for block in pair.blocks if block not in RECIPE_TXT_ORDER]
    if pair.components != _UNET or other:
        raise RecipeError(
            [
                "AutoMBW's recipe.txt blends nothing but the UNet's 27 blocks of SD1; "
                f"this recipe blends {', '.join(c.value for c in pair.components)}"
                f"{' by ' + ', '.join(other) if other else ''}."
            ]
        )
    weights = (repr(pair.blocks.get(b, pair.default)) for b in RECIPE_TXT_ORDER)
    lines = [
        f"modelA={pair.models[0].path}",
        f"modelB={pair.models[1].path}",
        "position_id_fix=Keep Original",
        "output_mode=Max Precision",
        ",".join(weights),
    ]
    return "\n".join(lines) + "\n"
