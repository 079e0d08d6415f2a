"""Reads a LoRA file: its modules, their kinds and ranks, and what is not understood."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lib_merge.checkpoint.header import FileState, Header, file_state, read_header
from lib_merge.checkpoint.reader import CheckpointReader
from lib_merge.errors import CheckpointError
from lib_merge.lora.kinds import (
    BIAS_ROLES,
    FORMS,
    Extent,
    Form,
    Kind,
    WrongShapes,
    check_magnitude,
)
from lib_merge.lora.names import ALPHA, DORA, MAGNITUDE, TensorName, take_apart

MAX_RANK = 1 << 14
"""A rank above every side of the layers that LoRAs are made for is damage."""

_N_NAMED = 3


@dataclass(frozen=True, slots=True)
class LoraModule:
    """What one module of a file changes, and how.

    Attributes:
        name: The module as the file names it.
        family: unet, te1, te2, te3; "" where the name does not say.
        flat: Its name, flattened.
        kind: How the change is written.
        tensors: (part, tensor's name in the file).
        shapes: (part, shape), in the same order.
        extent: Rows, columns and rank of the change.
        scale: Alpha over rank; 1 where the file has no alpha.
        alpha: As the file has it, or None.
    """

    name: str
    family: str
    flat: str
    kind: Kind
    tensors: tuple[tuple[str, str], ...]
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    extent: Extent
    scale: float = 1.0
    alpha: float | None = None

    @property
    def is_dora(self) -> bool:
        """Whether the magnitude of the changed weight is set, too."""
        return any(role in (DORA, MAGNITUDE) for role, _ in self.tensors)

    @property
    def needs_base(self) -> bool:
        """Whether the change depends on the weight that is changed."""
        return self.kind.needs_base or self.is_dora

    @property
    def n_factors(self) -> int:
        """Numbers that the change is computed from."""
        return sum(math.prod(shape) for _, shape in self.shapes)

    @property
    def label(self) -> str:
        """What people call it."""
        if not self.is_dora:
            return self.kind.label
        return "DoRA" if self.kind is Kind.LORA else f"DoRA of {self.kind.label}"


@dataclass(frozen=True, eq=False)
class LoraFile:
    """A LoRA file, before it is known what it is for.

    Attributes:
        header: Of the file.
        modules: In the file's order.
        strangers: Tensors that belong to no module that is understood.
    """

    header: Header
    modules: tuple[LoraModule, ...]
    strangers: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The file."""
        return self.header.path


def read_lora(path: str | os.PathLike[str]) -> LoraFile:
    """Read what a LoRA file holds; of the tensors only the alphas.

    Args:
        path: A .safetensors file, or a pickled one. The adapter_config.json that PEFT
            writes beside it is read for alphas.

    Raises:
        CheckpointError: Missing, damaged, of a kind that is not known, or its parts do
            not go together; everything that is wrong, by name.
    """
    file = Path(path)
    return _read(str(file), file_state(file))


@lru_cache(maxsize=512)
def _read(path: str, state: FileState) -> LoraFile:
    header = read_header(path)
    modules: dict[str, dict[str, TensorName]] = {}
    names: dict[tuple[str, str], str] = {}
    strangers = []
    for tensor in header.infos:
        found = take_apart(tensor)
        if found is None:
            strangers.append(tensor)
            continue
        if (found.module, found.role) in names:
            raise CheckpointError(
                f"{path} names one part twice: '{names[found.module, found.role]}' and "
                f"'{tensor}'; it was put together wrongly, choose another file."
            )
        names[found.module, found.role] = tensor
        modules.setdefault(found.module, {})[found.role] = found
    if not modules:
        raise CheckpointError(
            f"{path} is no LoRA: none of its {len(header.infos)} tensors has a LoRA's "
            f"name (the first: {', '.join(list(header.infos)[:3])}). Choose a LoRA."
        )
    builder = _Builder(header, names)
    read = tuple(m for roles in modules.values() for m in builder.modules(roles))
    if builder.faults:
        raise CheckpointError(_faulty(path, builder.faults))
    return LoraFile(header, read, (*strangers, *builder.strangers))


def _faulty(path: str, faults: list[str]) -> str:
    more = f" and {len(faults) - _N_NAMED} more" if len(faults) > _N_NAMED else ""
    return (
        f"{path} is damaged: {'; '.join(faults[:_N_NAMED])}{more}; download or save it "
        "again."
    )


class _Builder:
    """Makes modules of the tensors that bear a module's name."""

    def __init__(self, header: Header, names: Mapping[tuple[str, str], str]) -> None:
        self._header = header
        self._names = names
        self._config = _Config.of(header)
        self._reader = CheckpointReader(header)
        self.faults: list[str] = []
        self.strangers: list[str] = []

    def modules(self, roles: Mapping[str, TensorName]) -> Iterator[LoraModule]:
        """The module's weight, its bias, or both."""
        some = next(iter(roles.values()))
        weight = {r: n for r, n in roles.items() if r not in BIAS_ROLES}
        for role in (r for r in roles if r in BIAS_ROLES):
            yield from self._module(some, Form(Kind.BIAS, (role,), (), _bias_of(role)))
        if not weight or (set(weight) == {ALPHA} and len(roles) > 1):
            return
        form = next((f for f in FORMS if set(f.needed) <= set(weight)), None)
        if form is None:
            self.faults.append(self._incomplete(some, list(weight)))
            return
        known = (*form.needed, *form.optional)
        self.strangers += [
            self._names[some.module, r] for r in weight if r not in known
        ]
        yield from self._module(some, form)

    def _incomplete(self, some: TensorName, roles: list[str]) -> str:
        def lacks(form: Form) -> list[str]:
            return [role for role in form.needed if role not in roles]

        near = [f for f in FORMS if set(f.needed) & set(roles)] or [FORMS[0]]
        best = min(near, key=lambda form: len(lacks(form)))
        return f"'{some.module}' has {', '.join(roles)} but no {', '.join(lacks(best))}"

    def _module(self, some: TensorName, form: Form) -> Iterator[LoraModule]:
        tensors = [
            (role, self._names[some.module, role])
            for role in (*form.needed, *form.optional)
            if (some.module, role) in self._names
        ]
        infos = self._header.infos
        shapes = {role: infos[name].shape for role, name in tensors}
        strange = [name for _, name in tensors if not infos[name].dtype.is_float]
        strange = [name for name in strange if not name.endswith(ALPHA)]
        if strange:
            self.faults.append(
                f"'{strange[0]}' is {infos[strange[0]].dtype.torch_name}"
            )
            return
        try:
            extent = form.extent(shapes)
            check_magnitude(shapes, extent)
            if extent.rows < 1 or extent.rank > MAX_RANK:
                raise WrongShapes(f"rank {extent.rank} of {extent.rows} rows")
        except WrongShapes as fault:
            self.faults.append(f"'{some.module}': {fault}")
            return
        except (IndexError, ValueError):
            self.faults.append(f"'{some.module}' has shapes {list(shapes.values())}")
            return
        is_boft = form.kind is Kind.OFT and len(shapes["oft_blocks"]) == 4
        alpha = self._alpha(some, form, extent)
        yield LoraModule(
            name=some.module,
            family=some.family,
            flat=some.flat,
            kind=Kind.BOFT if is_boft else form.kind,
            tensors=tuple(tensors),
            shapes=tuple(shapes.items()),
            extent=extent,
            scale=_scale(form, extent, alpha, self._config.is_root(some.module)),
            alpha=alpha,
        )

    def _alpha(self, some: TensorName, form: Form, extent: Extent) -> float | None:
        name = self._names.get((some.module, ALPHA))
        if name is None or ALPHA not in form.optional:
            return self._config.alpha(some.module) if extent.rank else None
        if self._header.infos[name].n_elements != 1:
            self.faults.append(f"'{name}' is no single number")
            return None
        value = float(self._reader.read(name).double()[0])
        if not math.isfinite(value):
            self.faults.append(f"'{name}' is {value}")
        return value


def _bias_of(role: str) -> Any:
    def extent(shapes: Mapping[str, tuple[int, ...]]) -> Extent:
        return Extent(math.prod(shapes[role]), 1, 0)

    return extent


def _scale(form: Form, extent: Extent, alpha: float | None, is_root: bool) -> float:
    """Alpha over rank; what has no rank, or no alpha, is taken as it is."""
    if alpha is None or not extent.rank or form.kind is Kind.OFT:
        return 1.0
    return alpha / (math.sqrt(extent.rank) if is_root else extent.rank)


@dataclass(frozen=True)
class _Config:
    """What PEFT keeps outside the tensors: alphas, by module, and how they scale."""

    default: float | None = None
    by_module: tuple[tuple[str, float], ...] = ()
    has_root_scaling: bool = False

    @classmethod
    def of(cls, header: Header) -> _Config:
        """From the metadata (diffusers), or the file beside it (PEFT)."""
        text = header.metadata.get("lora_adapter_metadata", "")
        beside = header.path.with_name("adapter_config.json")
        try:
            if not text and header.path.stem.startswith("adapter_model"):
                text = beside.read_text(encoding="utf-8")
            data = json.loads(text) if text else {}
        except (OSError, ValueError, RecursionError):
            return cls()
        if not isinstance(data, dict):
            return cls()
        # Diffusers prefixes every field with the component; one is enough to scale by.
        plain = {str(name).rpartition(".")[2]: value for name, value in data.items()}
        alpha = plain.get("lora_alpha")
        pattern = plain.get("alpha_pattern")
        pairs = pattern.items() if isinstance(pattern, dict) else ()
        return cls(
            default=float(alpha) if isinstance(alpha, (int, float)) else None,
            by_module=tuple(
                (str(k), float(v)) for k, v in pairs if isinstance(v, (int, float))
            ),
            has_root_scaling=plain.get("use_rslora") is True,
        )

    def alpha(self, module: str) -> float | None:
        """A module's alpha, or None."""
        for name, value in self.by_module:
            if module == name or module.endswith(f".{name}"):
                return value
        return self.default

    def is_root(self, module: str) -> bool:
        """Whether alpha is divided by the root of the rank (rsLoRA)."""
        return self.has_root_scaling
