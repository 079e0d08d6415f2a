"""Inspects checkpoints from their headers: one file, or every file of a folder."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lib_merge.analysis.health.defects import Defect, Finding, extra_defect
from lib_merge.analysis.health.expected import expected_layout
from lib_merge.analysis.health.fit import Fit, fit_of
from lib_merge.analysis.health.inspection import (
    NOTHING,
    Contents,
    Inspection,
    Part,
    histories_of,
)
from lib_merge.analysis.health.memory import Memory
from lib_merge.analysis.health.recognise import Recognised, recognise
from lib_merge.checkpoint.folders import PIPELINE_FILE
from lib_merge.checkpoint.hashes import known_sha256
from lib_merge.checkpoint.header import Header, read_header
from lib_merge.checkpoint.metadata import header_recipe
from lib_merge.checkpoint.scaled import is_scale
from lib_merge.core.blocks import KeyInfos, TensorInfo, Treatment
from lib_merge.core.dtypes import DType
from lib_merge.core.ports import Progress
from lib_merge.engine.progress import NullProgress
from lib_merge.errors import InputError, MergeError

SUFFIXES = (".safetensors", ".ckpt", ".pt")
_ROOM = 64
_SCHEDULE = "SCHEDULE"


class ContentsCache:
    """What layouts tell; hundreds of files have the same few.

    Files that share a layout share its types and shapes as objects, so that finding it
    again is one comparison of two dictionaries.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], list[tuple[KeyInfos, Contents]]] = {}

    def contents(self, header: Header) -> Contents:
        """The contents of a file with this header."""
        name = (len(header.infos), next(iter(header.infos)))
        entries = self._known.setdefault(name, [])
        for infos, contents in entries:
            if infos == header.infos:
                return contents
        contents = contents_of(header.infos, where=header.path.name)
        entries.append((header.infos, contents))
        if len(entries) > _ROOM:
            entries.pop(0)
        return contents


def inspect_file(
    path: str | os.PathLike[str], cache: ContentsCache | None = None
) -> Inspection:
    """Everything that a checkpoint's header tells.

    Args:
        path: The file.
        cache: Shared by many files.

    Raises:
        CheckpointError: The file cannot be read.
    """
    return inspect_header(read_header(path), cache)


def inspect_header(header: Header, cache: ContentsCache | None = None) -> Inspection:
    """As `inspect_file`, of a header that was read already."""
    problems = []
    recipe = None
    try:
        found = header_recipe(header)
        recipe = found.to_json() if found else None
    except InputError as fault:
        problems.append(str(fault))
    contents = (cache or ContentsCache()).contents(header)
    if contents.arch_id is None:
        # The sentence names a file, and another one may have been the first.
        named = contents_of(header.infos, where=header.path.name)
        contents = replace(contents, problems=named.problems)
    return Inspection(
        path=header.path,
        n_bytes=header.n_bytes,
        n_keys=len(header.infos),
        contents=contents,
        metadata=header.metadata,
        recipe=recipe,
        histories=histories_of(header.metadata),
        problems=tuple(problems),
        sha256=known_sha256(header.path),
    )


def find_checkpoints(folder: Path) -> tuple[Path, ...]:
    """Every checkpoint in a folder and its subfolders, in the order of their names.

    The folder of a diffusers pipeline is one checkpoint.

    Raises:
        InputError: There is no such folder, or it holds none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give one that exists.")
    pipelines = {file.parent for file in folder.rglob(PIPELINE_FILE)}
    files = (
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not path.name.startswith(".")
        and not pipelines.intersection(path.parents)
        and path.is_file()
    )
    found = sorted((*files, *pipelines))
    if not found:
        raise InputError(
            f"{folder} holds no checkpoint ({', '.join(SUFFIXES)}); give another."
        )
    return tuple(found)


def inspect_files(
    paths: Sequence[Path], progress: Progress | None = None
) -> tuple[Inspection, ...]:
    """Inspect many files by their headers; one that cannot be read tells why.

    What was found is remembered: a file that did not change is not opened again.

    Args:
        paths: The files.
        progress: Advanced by files; asked once a file whether to stop.

    Raises:
        Cancelled: The user asked to stop.
    """
    progress = progress or NullProgress()
    progress.start("Inspecting", len(paths), "files")
    cache, memory = ContentsCache(), Memory()
    found = []
    try:
        for path in paths:
            progress.check()
            found.append(_remembered(path, cache, memory))
            progress.advance(1)
    finally:
        memory.save()
    return tuple(found)


def _remembered(path: Path, cache: ContentsCache, memory: Memory) -> Inspection:
    try:
        found = memory.get(path)
        if found is None:
            found = inspect_file(path, cache)
            memory.put(found)
    except MergeError as fault:
        return unreadable(path, fault)
    return found


def unreadable(path: Path, fault: MergeError) -> Inspection:
    """The inspection of a file that cannot be read."""
    n_bytes = path.stat().st_size if path.is_file() else 0
    return Inspection(
        path, n_bytes, 0, NOTHING, problems=(str(fault),), error=str(fault)
    )


def contents_of(infos: KeyInfos, *, where: str) -> Contents:
    """What keys, shapes and types alone tell.

    Args:
        infos: Every key with its declared tensor.
        where: The file, for messages.
    """
    known = recognise(infos, where=where)
    dtypes = Counter(info.dtype.torch_name for info in infos.values())
    contents = Contents(
        arch_id=known.architecture.id if known.architecture else None,
        label=known.label,
        kin=known.kin,
        n_params=sum(info.n_elements for info in infos.values()),
        n_ema_params=0,
        dtypes=dict(sorted(dtypes.items())),
        parts=(),
        blocks={},
        findings=tuple(_by_name(infos)) if known.architecture is None else (),
        problems=known.problems,
    )
    return contents if known.architecture is None else _sorted_out(contents, known)


def _by_name(infos: KeyInfos) -> Iterator[Finding]:
    scales = tuple(key for key in infos if is_scale(key))
    if scales:
        yield Finding(Defect.SCALED, scales)


def _sorted_out(contents: Contents, known: Recognised) -> Contents:
    """The contents of a file of a known architecture, part by part."""
    architecture = known.architecture
    assert architecture is not None
    model: dict[str, TensorInfo] = {}
    ema: list[str] = []
    scales: list[str] = []
    for key, info in known.infos.items():
        role = known.role_of(key)
        if is_scale(key):
            scales.append(key)
        elif role is not None and role.treatment is Treatment.DROP_UNLESS_ASKED:
            ema.append(key)
        else:
            model[key] = info
    expected = expected_layout(architecture.id)
    fit = fit_of(model, expected) if expected else None
    findings = tuple(_findings(known, model, fit, ema, scales))
    extra = {k for f in findings if f.defect.is_extra for k in f.keys}
    parts, blocks = _parts(known, model, extra, fit)
    empty = [name for name, n_params in blocks.items() if n_params == 0]
    empty = [name for name in empty if name != _SCHEDULE]
    problems = list(contents.problems)
    if empty and not known.is_lone:
        problems.append(f"Nothing is there of: {', '.join(empty)}.")
    return replace(
        contents,
        n_ema_params=sum(known.infos[key].n_elements for key in ema),
        parts=parts,
        blocks=blocks,
        findings=findings,
        kin=(*contents.kin, *_widths(fit)),
        problems=tuple(problems),
    )


def _widths(fit: Fit | None) -> tuple[str, ...]:
    return ("smaller than the original",) if fit and fit.widths else ()


def _findings(
    known: Recognised,
    model: KeyInfos,
    fit: Fit | None,
    ema: Sequence[str],
    scales: Sequence[str],
) -> Iterator[Finding]:
    extras: defaultdict[Defect, list[str]] = defaultdict(list)
    extras[Defect.EMA] += ema
    for key in model if fit is None else fit.extra:
        role = known.role_of(key)
        if fit is None and role is not None:
            continue
        extras[extra_defect(key)].append(key)
    for key in model:
        role = known.role_of(key)
        if role is not None and role.block == _SCHEDULE and _is_constant(key):
            extras[Defect.SCHEDULE].append(key)
    for defect in Defect:
        if extras.get(defect):
            yield Finding(defect, tuple(extras[defect]))
    if fit is not None:
        yield from _gaps(known, model, fit)
    wrong = [
        (key, f"is {info.dtype.torch_name} {list(info.shape)}")
        for key, info in model.items()
        if key.endswith("position_ids")
        and key not in extras[Defect.NESTED_IDS]
        and (info.dtype is not DType.I64 or info.shape[-1:] != (77,))
        and not (fit and fit.widths and info.dtype is DType.I64)
    ]
    if wrong:
        keys, details = zip(*wrong, strict=True)
        yield Finding(Defect.POSITION_IDS, keys, details)
    if scales:
        yield Finding(Defect.SCALED, tuple(scales))


def _is_constant(key: str) -> bool:
    """Whether it is a noise schedule's constant, and no mark of v-prediction."""
    return key not in ("v_pred", "ztsnr") and not key.startswith("edm_vpred.")


def _gaps(known: Recognised, model: KeyInfos, fit: Fit) -> Iterator[Finding]:
    here = {known.component_of(key) for key in fit.found}
    absent = [key for key in fit.missing if known.component_of(key) not in here]
    missing = [key for key in fit.missing if known.component_of(key) in here]
    if absent and not known.is_lone:
        yield Finding(Defect.ABSENT, tuple(absent))
    if missing:
        yield Finding(Defect.MISSING, tuple(missing))
    misshapen = [(k, s) for k, s in fit.misshapen if not k.endswith("position_ids")]
    if misshapen:
        keys = tuple(key for key, _ in misshapen)
        details = tuple(
            f"is {list(model[key].shape)}, not {_shape_text(shape)}"
            for key, shape in misshapen
        )
        yield Finding(Defect.MISSHAPEN, keys, details)


def _shape_text(shape: Sequence[int]) -> str:
    return str([side or "any" for side in shape]).replace("'", "")


def _parts(
    known: Recognised, model: KeyInfos, extra: set[str], fit: Fit | None
) -> tuple[tuple[Part, ...], Mapping[str, int]]:
    assert known.architecture is not None
    groups: defaultdict[str, list[TensorInfo]] = defaultdict(list)
    blocks = Counter(dict.fromkeys(known.architecture.block_ids(), 0))
    for key, info in model.items():
        role = known.role_of(key)
        if role is None:
            continue
        blocks[role.block] += info.n_elements
        groups[role.component.value].append(info)
    missing = Counter(known.component_of(key) for key in fit.missing) if fit else {}
    order = dict.fromkeys(b.component.value for b in known.architecture.blocks)
    parts = tuple(
        _part(name, groups[name], missing.get(name, 0))
        for name in order
        if groups.get(name)
    )
    return parts, {str(name): count for name, count in blocks.items()}


def _part(name: str, infos: Sequence[TensorInfo], n_missing: int) -> Part:
    dtypes = Counter(info.dtype.torch_name for info in infos)
    return Part(
        component=name,
        n_keys=len(infos),
        n_params=sum(info.n_elements for info in infos),
        n_bytes=sum(info.n_bytes for info in infos),
        dtypes=dict(sorted(dtypes.items())),
        n_missing=n_missing,
    )
