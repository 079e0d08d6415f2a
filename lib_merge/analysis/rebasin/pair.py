"""Two models to be matched: checked against each other, read tensor by tensor."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from lib_merge.analysis.rebasin.derive import COMPONENTS, derive_spec
from lib_merge.analysis.rebasin.spec import PermutationSpec
from lib_merge.checkpoint.compare import have_equal_tensors
from lib_merge.checkpoint.handles import Handles
from lib_merge.checkpoint.header import Header, read_header
from lib_merge.checkpoint.names import stored_name
from lib_merge.checkpoint.reader import CheckpointReader
from lib_merge.core.blocks import Architecture, Component, Treatment
from lib_merge.core.recipe import ModelNode, Recipe
from lib_merge.engine.layouts import single_file_layout
from lib_merge.engine.resolve import recipe_models
from lib_merge.errors import CheckpointError, RecipeError

if TYPE_CHECKING:
    from torch import Tensor

A, B = 0, 1
"""Which model of a pair: B is aligned to A."""

_SHOWN = 5


@dataclass(frozen=True)
class Pair:
    """Two models of one architecture, and how their channels may be permuted.

    Attributes:
        headers: Of A and B.
        architecture: Of both.
        spec: In A's spelling of the keys.
        components: The component of every tensor of UNet and text encoders, by key.
        names: B's spelling of each of these keys.
    """

    headers: tuple[Header, Header]
    architecture: Architecture
    spec: PermutationSpec
    components: Mapping[str, Component]
    names: Mapping[str, str]

    def stored(self, model: int, key: str) -> str:
        """A model's own spelling of a key."""
        return key if model == A else self.names[key]


def open_pair(
    model_a: str | os.PathLike[str],
    model_b: str | os.PathLike[str],
    *,
    folders: Sequence[str | os.PathLike[str]] = (),
    n_heads: Mapping[Component, int] | None = None,
) -> Pair:
    """Check two models against each other from their headers.

    Args:
        model_a: The model that stays.
        model_b: The model that is to be aligned.
        folders: Where checkpoints lie.
        n_heads: Numbers of attention heads by component, for unusual widths.

    Raises:
        RecipeError: Everything wrong: missing, one file twice, of different or
            unsupported architectures, other keys or shapes.
        CheckpointError: A header that cannot be read.
    """
    nodes = (ModelNode(os.fspath(model_a)), ModelNode(os.fspath(model_b)))
    found = recipe_models(Recipe(nodes), folders)
    paths = [Path(model.path) for _, model in found.models()]
    headers = (read_header(paths[A]), read_header(paths[B]))
    kinds = [single_file_layout(header).architecture for header in headers]
    if kinds[A].id != kinds[B].id:
        raise RecipeError(
            [
                f"{paths[A].name} is {kinds[A].label}, {paths[B].name} is "
                f"{kinds[B].label}; only models of one architecture can be aligned."
            ]
        )
    if have_equal_tensors(*headers):
        raise RecipeError(
            [
                f"{paths[A]} and {paths[B]} are one model twice, so there is nothing "
                "to align; choose another B."
            ]
        )
    spec = derive_spec(kinds[A], headers[A].infos, where=str(paths[A]), n_heads=n_heads)
    components, names = _common_keys(headers, kinds[A])
    return Pair(headers, kinds[A], spec, components, names)


def _common_keys(
    headers: tuple[Header, Header], architecture: Architecture
) -> tuple[dict[str, Component], dict[str, str]]:
    """Keys of UNet and text encoders, and B's names of them; both must have all."""
    names: dict[str, str] = {}
    components: dict[str, Component] = {}
    missing, odd = [], []
    for key, info in headers[A].infos.items():
        component = _permuted(architecture, key)
        if component is None or not info.dtype.is_float:
            continue
        name = stored_name(headers[B].infos, key)
        if name is None:
            missing.append(key)
            continue
        other = headers[B].infos[name]
        if other.shape != info.shape or not other.dtype.is_float:
            odd.append(
                f"{key} is {list(info.shape)} in A and {list(other.shape)} in B"
                if other.shape != info.shape
                else f"{key} holds {other.dtype.torch_name} in B"
            )
        names[key], components[key] = name, component
    known = set(names.values())
    extra = [
        key
        for key, info in headers[B].infos.items()
        if key not in known and info.dtype.is_float and _permuted(architecture, key)
    ]
    _refuse(headers, missing, extra, odd)
    return components, names


def _permuted(architecture: Architecture, key: str) -> Component | None:
    role = architecture.role_of(key)
    if role is None or role.treatment is not Treatment.MERGE:
        return None
    return role.component if role.component in COMPONENTS else None


def _refuse(
    headers: tuple[Header, Header],
    missing: Sequence[str],
    extra: Sequence[str],
    odd: Sequence[str],
) -> None:
    name_a, name_b = (header.path.name for header in headers)
    problems = []
    for lacking, having, keys in ((name_b, name_a, missing), (name_a, name_b, extra)):
        if keys:
            problems.append(
                f"{lacking} lacks {len(keys)} tensors that {having} has "
                f"({', '.join(keys[:_SHOWN])}); only whole models can be aligned."
            )
    if odd:
        problems.append(
            f"{len(odd)} tensors differ between {name_a} (A) and {name_b} (B): "
            f"{'; '.join(odd[:_SHOWN])}. Only models of equal shapes can be aligned."
        )
    if problems:
        raise RecipeError(problems)


class PairReader:
    """Reads whole tensors of a pair; a context manager, safe from any thread.

    Args:
        pair: The pair.
        cache_bytes: So many bytes of tensors are kept in memory, as stored.

    Raises:
        CheckpointError: A file is gone or changed since its header was read.
    """

    def __init__(self, pair: Pair, cache_bytes: int = 0) -> None:
        self.pair = pair
        handles = Handles()
        self._readers = [CheckpointReader(h, handles) for h in pair.headers]
        self._cache: dict[tuple[int, str], Tensor] = {}
        self._left = cache_bytes
        self._lock = threading.Lock()

    def read(self, model: int, key: str, *, keep: bool = False) -> Tensor:
        """A whole tensor as stored; not to be written to.

        Args:
            model: A or B.
            key: In A's spelling.
            keep: Whether it is wanted again, so that it is kept if there is room.
        """
        cached = self._cache.get((model, key))
        if cached is not None:
            return cached
        reader = self._readers[model]
        name = self.pair.stored(model, key)
        tensor = reader.read(name).view(reader.header.infos[name].shape)
        with self._lock:
            if keep and tensor.nbytes <= self._left:
                self._cache[model, key] = tensor
                self._left -= tensor.nbytes
        return tensor

    def read_other(self, name: str) -> Tensor:
        """A tensor of B under its own name, as stored."""
        reader = self._readers[B]
        if name not in reader.header.infos:
            raise CheckpointError(f"{reader.header.path} has no tensor '{name}'.")
        return reader.read(name).view(reader.header.infos[name].shape)

    def close(self) -> None:
        """Close both files and free the memory."""
        self._cache.clear()
        for reader in self._readers:
            reader.close()

    def __enter__(self) -> PairReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
