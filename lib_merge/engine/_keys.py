"""What happens to each key: merged, converted or copied; faults gathered by model."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from lib_merge.arch import architectures
from lib_merge.core.blocks import Component, KeyRole, TensorInfo, Treatment
from lib_merge.core.dtypes import DType
from lib_merge.core.layouts import find_stored
from lib_merge.core.plan import (
    CopyOp,
    KeyTask,
    LoraOp,
    MergeOp,
    Op,
    models_of,
    parts_of,
)
from lib_merge.core.recipe import LoraNode, ModelNode, Recipe, SelectNode
from lib_merge.engine._key_faults import KeyFaults, PlanModels
from lib_merge.engine._settings import LoraValues, NodeValues, SelectValues
from lib_merge.methods import methods

_ADDS_DIFFERENCE = "add_difference"
"""Its B and C count as B - C only, value by value, and zero adds nothing."""


@dataclass(frozen=True)
class KeyPlans:
    """What `KeyPlanner.plan` found."""

    tasks: tuple[KeyTask, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


@lru_cache(maxsize=1 << 15)
def _role(arch_id: str, key: str) -> KeyRole | None:
    return architectures().get(arch_id).role_of(key)


@dataclass(frozen=True)
class _Found:
    """A tensor in one model: its type, and whether it has fewer input channels."""

    dtype: DType
    is_narrow: bool = False


class KeyPlanner:
    """Walks the keys of the output once.

    Args:
        recipe: With files that were found.
        models: Its models, all of one architecture.
        values: Resolved parameters by merge node index, choices by select node, and
            strengths with what is changed by LoRA node.
    """

    def __init__(
        self,
        recipe: Recipe,
        models: PlanModels,
        values: Mapping[int, NodeValues | SelectValues | LoraValues],
    ) -> None:
        self._recipe = recipe
        self._models = models
        self._architecture = models.output.architecture
        self._values = values
        self._faults = KeyFaults(recipe, models)
        # One value each: a merge of 250 models has half a million places for them.
        self._copies = {index: CopyOp(index) for index in models.headers}
        output = models.output.bindings
        self._alike = {i: m.bindings == output for i, m in models.layouts.items()}

    def plan(self) -> KeyPlans:
        """A task for every key that the output has."""
        tasks = []
        output = self._models.output
        for key, info in output.infos.items():
            spot = output.spots[key]
            role = _role(self._architecture.id, spot.key) if spot else None
            if role is None:
                self._faults.unknown.append(key)
                role = KeyRole(
                    self._architecture.blocks[-1].id,
                    Component.SCHEDULE,
                    Treatment.COPY,
                )
            is_ema = role.treatment is Treatment.DROP_UNLESS_ASKED
            if is_ema and not self._recipe.keep_ema:
                continue
            tasks.append(self._task(key, info, role))
        return KeyPlans(
            tasks=tuple(tasks),
            problems=tuple(self._faults.problems()),
            warnings=tuple(self._faults.warnings()),
        )

    def _task(self, key: str, info: TensorInfo, role: KeyRole) -> KeyTask:
        op: Op = self._copies[self._models.first]
        found: Mapping[int, _Found] = {}
        if role.treatment is Treatment.MERGE and info.dtype.is_float:
            op = self._op(len(self._recipe.nodes) - 1, key, role)
            op, found = self._checked(op, key, info)
        elif role.treatment is Treatment.MERGE:
            self._faults.integers.append(key)
        return KeyTask(
            key=key,
            shape=info.shape,
            dtype=self._dtype(op, info, role),
            block=role.block,
            component=role.component,
            op=op,
            element_bytes=sum(
                found[m].dtype.size if m in found else info.dtype.size
                for m in models_of(op)
            ),
        )

    def _op(self, index: int, key: str, role: KeyRole) -> Op:
        node = self._recipe.nodes[index]
        if isinstance(node, ModelNode):
            return self._copies[index]
        values = self._values[index]
        if isinstance(node, LoraNode):
            assert isinstance(values, LoraValues)
            base = self._op(node.base, key, role)
            return values.operation(index, base, key, role.block)
        if isinstance(node, SelectNode):
            assert isinstance(values, SelectValues)
            position = values.input_for(key, role.block)
            return self._op(node.inputs[position], key, role)
        if role.component not in node.components:
            return self._op(node.inputs[0], key, role)
        assert isinstance(values, NodeValues)
        return MergeOp(
            method=node.method,
            inputs=tuple(self._op(i, key, role) for i in node.inputs),
            params=values.for_key(key, role.block),
        )

    def _checked(
        self, op: Op, key: str, info: TensorInfo
    ) -> tuple[Op, Mapping[int, _Found]]:
        """The operation, without models of a pool that lack the key.

        Where it cannot be done without them it is a copy of the first model's tensor.
        """
        found: dict[int, _Found] = {}
        absent = []
        for model in models_of(op):
            place = self._find(model, key, info)
            if place is None:
                absent.append(model)
            else:
                found[model] = place
        if absent:
            op = without(op, absent) or self._copies[self._models.first]
        narrow = [model for model, place in found.items() if place.is_narrow]
        if narrow and is_narrow_at(op, narrow) is not False:
            for model in narrow:
                self._misshapen(model, key, info)
        return op, found

    def _find(self, model: int, key: str, info: TensorInfo) -> _Found | None:
        """A tensor of the output in a model; what is odd about it is noted."""
        layout = self._models.layouts[model]
        other = layout.infos.get(key) if self._alike[model] else None
        if other is not None and other.shape == info.shape and other.dtype.is_float:
            return _Found(other.dtype)
        stored = find_stored(self._models.output, key, layout)
        if stored is None:
            self._note_absent(model, key)
            return None
        if stored.info.shape != info.shape:
            self._misshapen(model, key, info)
        elif not stored.info.dtype.is_float:
            fault = f"{key} is {stored.info.dtype.torch_name}"
            self._faults.shapes[model].append(fault)
        return _Found(stored.info.dtype, stored.n_channels is not None)

    def _note_absent(self, model: int, key: str) -> None:
        spot = self._models.output.spots[key]
        is_spare = spot is not None and (
            self._architecture.is_spare(spot.key)
            or not self._models.layouts[model].can_name(spot.key)
        )
        faults = self._faults.spared if is_spare else self._faults.missing
        faults[model].append(key)

    def _misshapen(self, model: int, key: str, info: TensorInfo) -> None:
        spot = self._models.output.spots[key]
        theirs = self._models.layouts[model].canonical
        mine: tuple[int, ...] = info.shape
        name = spot.key if spot and spot.key in theirs else key
        other = theirs[name].shape if name in theirs else ()
        if name in self._models.output.canonical:
            mine = self._models.output.canonical[name].shape
        self._faults.shapes[model].append(f"{key} is {list(other)}, not {list(mine)}")

    def _dtype(self, op: Op, info: TensorInfo, role: KeyRole) -> DType:
        save = self._recipe.save_dtype
        is_constant = (
            role.treatment is Treatment.COPY or role.component is Component.SCHEDULE
        )
        if save is None or is_constant or not info.dtype.is_float:
            return info.dtype
        if isinstance(op, CopyOp) and save.size < 2:
            # Eight bits suit blended UNets that are loaded as such; a VAE copied
            # into them is ruined, so what is only copied keeps its type.
            return info.dtype
        return save


def is_narrow_at(op: Op | None, narrow: Container[int]) -> bool | None:
    """Whether what an operation gives has fewer input channels than the output wants.

    Args:
        op: An operation.
        narrow: Models that have fewer; zeros are read in the others' place.

    Returns:
        False also where narrow models only count as a difference that a method adds to
        a wide one; None where narrow and wide are mixed in another way.
    """
    if op is None or isinstance(op, CopyOp):
        return op is not None and op.model in narrow
    parts = [is_narrow_at(part, narrow) for part in parts_of(op)]
    is_difference = isinstance(op, MergeOp) and op.method == _ADDS_DIFFERENCE
    if is_difference and parts[0] is False and parts[1] is parts[2] is not None:
        return False
    return parts[0] if all(part is parts[0] for part in parts) else None


def without(op: Op | None, models: Container[int]) -> Op | None:
    """An operation that does without some models.

    Args:
        op: An operation.
        models: Model nodes that are not to be read.

    Returns:
        Pools without the parts that need them (None in their places, so that draws of
        the others stay as they were), or None where it cannot be done.
    """
    if op is None:
        return None
    if isinstance(op, CopyOp):
        return None if op.model in models else op
    if isinstance(op, LoraOp):
        base = without(op.base, models)
        return None if base is None else replace(op, base=base)
    method = methods().get(op.method)
    inputs = tuple(without(part, models) for part in op.inputs)
    has_pool_left = any(part is not None for part in inputs[method.n_single :])
    is_whole = all(part is not None for part in inputs[: method.n_single])
    if not is_whole or (method.is_pool and not has_pool_left):
        return None
    return replace(op, inputs=inputs)
