"""What `recipe` prints: files, entries, recipes, models found, leaf weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lib_merge.core.nodes import LoraNode, MergeNode, ModelNode, SelectNode, Setting
from lib_merge.core.recipe import Recipe
from lib_merge.methods import methods

if TYPE_CHECKING:
    from lib_merge.formats.flatten import Flat
    from lib_merge.formats.imported import Entry, Imported
    from lib_merge.formats.lookup import Found

_MAX_LINES = 40
_MAX_INPUTS = 12


def show_file(imported: Imported) -> None:
    """The format, how it was understood, and what is not known."""
    print(f"format   {imported.title}")
    for note in imported.notes:
        print(f"note     {note}")
    for sentence in imported.unknown:
        print(f"unknown  {sentence}")


def show_entries(imported: Imported) -> None:
    """A line for each entry."""
    print(f"entries  {len(imported.entries)}; show one with --entry NAME")
    for entry in imported.entries[:_MAX_LINES]:
        facts = ", ".join(f"{name} {value}" for name, value in entry.facts[:3])
        print(f"  {entry.name}" + (f"  ({facts})" if facts else ""))
    if len(imported.entries) > _MAX_LINES:
        print(f"  ... and {len(imported.entries) - _MAX_LINES} more")


def show_entry(entry: Entry) -> None:
    """A recipe, or block weights without models."""
    print(f"entry    {entry.name}")
    for name, value in entry.facts:
        print(f"  {name}: {value}")
    if entry.recipe is not None:
        show_recipe(entry.recipe)
    elif entry.weights is not None:
        print(f"blends   {', '.join(c.value for c in entry.components)}")
        print(f"alpha    {setting_text('alpha', entry.weights)}")
        print("models   none are named; give them with --inputs A B")


def show_recipe(recipe: Recipe) -> None:
    """Its models, then its merges in order."""
    models = recipe.models()
    print(f"models   {len(models)}")
    merges = len(recipe.nodes) - len(models)
    for index, node in enumerate(recipe.nodes):
        if isinstance(node, ModelNode):
            known = f"  sha256 {node.sha256[:10]}" if node.sha256 else ""
            print(f"  {index:>4}  {node.path}{known}")
        else:
            print(f"  {index:>4}  {node_text(node)}")
    save = recipe.save_dtype.torch_name if recipe.save_dtype else "keep"
    print(f"merges   {merges}, in {recipe.compute_dtype.torch_name}, saved as {save}")


def node_text(node: object) -> str:
    """A merge, selection or LoRA in one line."""
    if isinstance(node, SelectNode):
        picks = []
        for pick in node.picks:
            words = [*pick.blocks, *([f"/{pick.pattern}/"] if pick.pattern else [])]
            picks.append(f"{' '.join(words)} of {node.inputs[pick.input]}")
        return f"select  {node.inputs[0]}, but {'; '.join(picks)}"
    if isinstance(node, LoraNode):
        strength = setting_text("strength", node.strength)
        return f"lora  {node.path} on {node.base}  {strength}"
    assert isinstance(node, MergeNode)
    inputs = [str(i) for i in node.inputs]
    if len(inputs) > _MAX_INPUTS:
        inputs = [*inputs[:4], f"... {len(inputs) - 5} more ...", inputs[-1]]
    params = "  ".join(_param(node, name, value) for name, value in node.params[:20])
    return f"{node.method}  ({', '.join(inputs)})  {params}".rstrip()


def _param(node: MergeNode, name: str, setting: Setting) -> str:
    spec = methods().get(node.method).param(name) if node.method in methods() else None
    if spec is not None and not setting.blocks and not setting.rules:
        return f"{name}={spec.text_of(setting.value)}"
    return setting_text(name, setting)


def setting_text(name: str, setting: Setting) -> str:
    """A setting in words: its value, by block, by layer."""
    words = [f"{name}={setting.value:g}"]
    words += [f"{block}={value:g}" for block, value in setting.blocks]
    for rule in setting.rules[:8]:
        where = " ".join(rule.blocks) or "any"
        words.append(f"[{where} /{rule.pattern}/]={rule.value:g}")
    if len(setting.rules) > 8:
        words.append(f"... {len(setting.rules) - 8} rules more")
    return " ".join(words)


def show_found(found: Sequence[Found]) -> None:
    """Where each model lies, or why it does not."""
    missing = [one for one in found if one.path is None]
    for one in found:
        if one.path is not None:
            print(f"found    {one.model.path}  ->  {one.path}")
    for one in missing:
        print(f"missing  {one.reason}")
    print(f"{len(found) - len(missing)} of {len(found)} models found.")


def show_flat(flat: Flat, imported: Imported) -> None:
    """The share of each leaf, for every group of blocks that has shares of its own."""
    from lib_merge.formats.flatten import grouped

    groups = grouped(flat)
    for name, column in groups:
        total = sum(column)
        used = [
            (weight, leaf)
            for weight, leaf in zip(column, flat.leaves, strict=True)
            if weight
        ]
        print(f"{name}  ({len(used)} leaves, together {total:.6g})")
        for weight, leaf in used:
            print(f"  {weight:>12.8f}  {leaf.name}")
    for sentence in flat.kept:
        print(f"kept     {sentence}")
    for sentence in imported.unknown:
        print(f"unknown  {sentence}")


def imported_json(imported: Imported) -> dict[str, Any]:
    """All that a file says."""
    return {
        "format": imported.format,
        "title": imported.title,
        "notes": list(imported.notes),
        "unknown": list(imported.unknown),
        "entries": [
            {
                "name": entry.name,
                "facts": dict(entry.facts),
                "recipe": entry.recipe.to_json() if entry.recipe else None,
                "alpha": _setting_json(entry.weights) if entry.weights else None,
                "components": [c.value for c in entry.components],
            }
            for entry in imported.entries
        ],
    }


def _setting_json(setting: Setting) -> dict[str, Any]:
    return {"value": setting.value, "blocks": dict(setting.blocks)}


def flat_json(flat: Flat, imported: Imported) -> dict[str, Any]:
    """Leaf weights by group of blocks."""
    from lib_merge.formats.flatten import grouped

    return {
        "architecture": flat.arch.id,
        "leaves": [
            {"name": leaf.name, "sha256": leaf.sha256, "node": leaf.index}
            for leaf in flat.leaves
        ],
        "weights": [
            {"blocks": name, "weights": list(column)} for name, column in grouped(flat)
        ],
        "kept": list(flat.kept),
        "unknown": list(imported.unknown),
    }
