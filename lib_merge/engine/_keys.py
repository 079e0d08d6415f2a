"""What happens to each key: merged, converted or copied; faults gathered by model."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from lib_merge.arch import architectures
from lib_merge.checkpoint.header import Header
from lib_merge.checkpoint.names import stored_name
from lib_merge.core.blocks import (
    Architecture,
    Component,
    KeyRole,
    TensorInfo,
    Treatment,
)
from lib_merge.core.dtypes import DType
from lib_merge.core.plan import CopyOp, KeyTask, LoraOp, MergeOp, Op, models_of
from lib_merge.core.recipe import LoraNode, ModelNode, Recipe, SelectNode
from lib_merge.engine._settings import LoraValues, NodeValues, SelectValues
from lib_merge.methods import methods

_N_NAMED = 3
"""So many keys are named in a message; the rest are counted."""


@dataclass(frozen=True)
class KeyPlans:
    """What `KeyPlanner.plan` found."""

    tasks: tuple[KeyTask, ...]
    names: Mapping[int, Mapping[str, str]]
    """For each model, its own spelling of keys that it spells differently."""
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


@lru_cache(maxsize=1 << 15)
def _role(arch_id: str, key: str) -> KeyRole | None:
    return architectures().get(arch_id).role_of(key)


class KeyPlanner:
    """Walks the keys of the first model once.

    Args:
        recipe: With files that were found.
        headers: By model node index.
        architecture: Of all of them.
        values: Resolved parameters by merge node index, choices by select node, and
            strengths with what is changed by LoRA node.
    """

    def __init__(
        self,
        recipe: Recipe,
        headers: Mapping[int, Header],
        architecture: Architecture,
        values: Mapping[int, NodeValues | SelectValues | LoraValues],
    ) -> None:
        self._recipe = recipe
        self._headers = headers
        self._architecture = architecture
        self._values = values
        self._first = recipe.first_model()
        self._names: dict[int, dict[str, str]] = {index: {} for index in headers}
        self._missing: dict[int, list[str]] = {index: [] for index in headers}
        self._shapes: dict[int, list[str]] = {index: [] for index in headers}
        self._integers: list[str] = []
        # One value each: a merge of 250 models has half a million places for them.
        self._copies = {index: CopyOp(index) for index in headers}
        self._unknown: list[str] = []

    def plan(self) -> KeyPlans:
        """A task for every key that the output has."""
        tasks = []
        for key, info in self._headers[self._first].infos.items():
            role = _role(self._architecture.id, key)
            if role is None:
                self._unknown.append(key)
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
            names=self._names,
            problems=tuple(self._problems()),
            warnings=tuple(self._warnings()),
        )

    def _task(self, key: str, info: TensorInfo, role: KeyRole) -> KeyTask:
        op: Op = self._copies[self._first]
        if role.treatment is Treatment.MERGE and info.dtype.is_float:
            op = self._op(len(self._recipe.nodes) - 1, key, role)
            op = self._checked(op, key, info)
        elif role.treatment is Treatment.MERGE:
            self._integers.append(key)
        return KeyTask(
            key=key,
            shape=info.shape,
            dtype=self._dtype(op, info, role),
            block=role.block,
            component=role.component,
            op=op,
            element_bytes=sum(self._stored(m, key).dtype.size for m in models_of(op)),
        )

    def _stored(self, model: int, key: str) -> TensorInfo:
        infos = self._headers[model].infos
        return infos[self._names[model].get(key, key)]

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

    def _checked(self, op: Op, key: str, info: TensorInfo) -> Op:
        """The operation, without models of a pool that lack the key.

        Where it cannot be done without them it is a copy of the first model's tensor.
        """
        absent = set()
        for model in models_of(op):
            infos = self._headers[model].infos
            name = stored_name(infos, key)
            if name is None:
                self._missing[model].append(key)
                absent.add(model)
                continue
            if name != key:
                self._names[model][key] = name
            other = infos[name]
            if other.shape != info.shape:
                self._shapes[model].append(
                    f"{key} is {list(other.shape)}, not {list(info.shape)}"
                )
            elif not other.dtype.is_float:
                self._shapes[model].append(f"{key} is {other.dtype.torch_name}")
        if not absent:
            return op
        return without(op, absent) or self._copies[self._first]

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

    def _problems(self) -> Iterator[str]:
        first = self._headers[self._first].path.name
        for model, keys in self._missing.items():
            if keys and not self._recipe.is_missing_ok:
                yield (
                    f"{self._headers[model].path} lacks {_listed(keys)} that {first} "
                    "has; choose a whole model, or do without it there with "
                    "--missing-ok."
                )
        for model, faults in self._shapes.items():
            if faults:
                yield (
                    f"{self._headers[model].path} does not fit {first} in "
                    f"{_listed(faults, '; ')}; models of one size only can be merged "
                    "(an inpainting model has a wider first convolution)."
                )

    def _warnings(self) -> Iterator[str]:
        first = self._headers[self._first].path.name
        if self._unknown:
            yield (
                f"{first} has {_listed(self._unknown)} unknown to "
                f"{self._architecture.label}; copied as they are."
            )
        if self._integers:
            yield f"{first} has {_listed(self._integers)} of integers; copied."
        for model, keys in self._missing.items():
            if keys:
                yield (
                    f"{self._headers[model].path.name} lacks {_listed(keys)}; a pool "
                    f"does without it there, else they are taken from {first}."
                )
        yield from self._extra_warnings(first)
        yield from self._precision_warnings()

    def _extra_warnings(self, first: str) -> Iterator[str]:
        mine = self._headers[self._first].infos
        for model, header in self._headers.items():
            if model == self._first:
                continue
            extra = [key for key in header.infos if self._is_lost(key, mine)]
            if extra:
                yield (
                    f"{header.path.name} has {_listed(extra)} that {first} lacks; "
                    "they are not in the result."
                )

    def _is_lost(self, key: str, mine: Mapping[str, TensorInfo]) -> bool:
        if key in mine or stored_name(mine, key) is not None:
            return False
        role = _role(self._architecture.id, key)
        return role is not None and role.treatment is Treatment.MERGE

    def _precision_warnings(self) -> Iterator[str]:
        if self._recipe.compute_dtype is DType.F64:
            return
        for header in self._headers.values():
            if any(info.dtype is DType.F64 for info in header.infos.values()):
                yield (
                    f"{header.path.name} holds float64 values, computed in float32; "
                    "use --precision float64 to keep them exact."
                )


def _listed(items: list[str], separator: str = ", ") -> str:
    """The first few of some keys, and how many there are."""
    shown = separator.join(items[:_N_NAMED])
    more = f"{separator}..." if len(items) > _N_NAMED else ""
    noun = "key" if len(items) == 1 else "keys"
    return f"{len(items)} {noun} ({shown}{more})"


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
