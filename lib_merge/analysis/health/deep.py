"""Reads every value of a checkpoint once: what is not finite, dead, and who has it."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib_merge.analysis._crew import default_threads, in_order
from lib_merge.analysis.health.defects import Defect, Finding
from lib_merge.analysis.health.expected import expected_layout
from lib_merge.analysis.health.inspection import Inspection, Part
from lib_merge.analysis.health.job import FileValues
from lib_merge.analysis.health.recognise import Recognised, recognise
from lib_merge.analysis.health.source import Source
from lib_merge.analysis.health.values import Piece, pieces_of
from lib_merge.checkpoint.handles import Handles
from lib_merge.checkpoint.hashes import HashCache, cache_dir
from lib_merge.checkpoint.header import Header, file_state, read_header
from lib_merge.checkpoint.reader import CheckpointReader
from lib_merge.checkpoint.scaled import is_scale
from lib_merge.core.blocks import TensorInfo, Treatment
from lib_merge.core.dtypes import DType
from lib_merge.core.ports import Progress
from lib_merge.engine.progress import NullProgress

_DIGITS = 16
_FORM = 1
"""Of what is kept; another number makes kept results be forgotten."""


@dataclass(frozen=True)
class Values:
    """What one tensor's values are like.

    Attributes:
        n_nan: How many are no number.
        n_infinite: How many are infinite.
        low: The least finite value, or None where there is none.
        high: The greatest.
        digest: Of the values as float16, or as stored where they are integers.
    """

    n_nan: int
    n_infinite: int
    low: float | None
    high: float | None
    digest: str


@dataclass(frozen=True)
class DeepResult:
    """What reading a file found.

    Attributes:
        findings: Tensors that are not finite, dead or constant, wrong position ids.
        digests: A name for the values of each component.
    """

    findings: tuple[Finding, ...]
    digests: Mapping[str, str]

    def to_text(self) -> str:
        """As kept in the cache."""
        findings = [[f.defect.value, f.keys, f.details] for f in self.findings]
        return json.dumps([_FORM, findings, dict(self.digests)])

    @classmethod
    def from_text(cls, text: str) -> DeepResult | None:
        """Read what `to_text` gave; None for anything else."""
        try:
            form, findings, digests = json.loads(text)
            found = tuple(
                Finding(Defect(name), tuple(keys), tuple(details))
                for name, keys, details in findings
            )
        except (ValueError, TypeError):
            return None
        return cls(found, dict(digests)) if form == _FORM else None


def _cache() -> HashCache:
    return HashCache(cache_dir() / "components.json")


def remembered(path: Path, cache: HashCache | None = None) -> DeepResult | None:
    """What an earlier reading of the same file found, if it did not change since."""
    text = (cache or _cache()).get(path, file_state(path))
    return DeepResult.from_text(text) if text else None


def deepen(inspection: Inspection, result: DeepResult) -> Inspection:
    """An inspection with what reading the values added."""
    parts = tuple(
        replace(part, digest=result.digests.get(part.component))
        for part in inspection.contents.parts
    )
    findings = [
        f
        for f in inspection.contents.findings
        if f.defect not in {found.defect for found in result.findings}
    ]
    contents = replace(
        inspection.contents, parts=parts, findings=(*findings, *result.findings)
    )
    return replace(inspection, contents=contents, is_deep=True)


def recall(inspections: Sequence[Inspection]) -> tuple[Inspection, ...]:
    """Inspections with what earlier readings found; no file is read."""
    cache = _cache()
    found = []
    for inspection in inspections:
        result = None
        if inspection.error is None:
            result = remembered(inspection.path, cache)
        found.append(deepen(inspection, result) if result else inspection)
    return tuple(found)


def read_deep(
    inspections: Sequence[Inspection],
    *,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[Inspection, ...]:
    """Read the values of files that were inspected; known results are not read again.

    Args:
        inspections: Files that cannot be read come back as they are.
        n_threads: Threads that read; None takes what the machine has.
        progress: Advanced by bytes; asked once a piece whether to stop.

    Raises:
        CheckpointError: A file went away or changes while it is read.
        Cancelled: The user asked to stop.
    """
    progress = progress or NullProgress()
    cache = _cache()
    headers = {
        i: read_header(inspection.path)
        for i, inspection in enumerate(inspections)
        if inspection.error is None
    }
    results = {i: remembered(header.path, cache) for i, header in headers.items()}
    unread = [i for i, result in results.items() if result is None]
    n_bytes = sum(info.n_bytes for i in unread for info in headers[i].infos.values())
    if unread:
        progress.start("Reading values", n_bytes)
    for i in unread:
        results[i] = scan(headers[i], n_threads=n_threads, progress=progress)
        state = file_state(headers[i].path)
        cache.put(headers[i].path, state, _kept(results[i]))
    found = []
    for i, inspection in enumerate(inspections):
        result = results.get(i)
        found.append(deepen(inspection, result) if result else inspection)
    return tuple(found)


def _kept(result: DeepResult | None) -> str:
    assert result is not None
    return result.to_text()


def scan(
    header: Header,
    *,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> DeepResult:
    """Read every value of one file.

    Args:
        header: The file's.
        n_threads: Threads that read; None takes what the machine has.
        progress: Advanced by bytes; asked once a piece whether to stop.
    """
    progress = progress or NullProgress()
    known = recognise(header.infos, where=header.path.name)
    keys = [key for key in known.infos if not is_scale(key)]
    with CheckpointReader(header, Handles(is_in_order=True)) as reader:
        source = Source(reader)

        def work(key: str) -> Values:
            wanted = known.values(header, key)
            return _values(source, known.infos[key], wanted, progress)

        crew = in_order(work, keys, n_threads or default_threads())
        values = dict(zip(keys, crew, strict=True))
        findings = tuple(_findings(known, values, header, source))
    return DeepResult(findings, _digests(known, values))


def _values(
    source: Source, info: TensorInfo, wanted: FileValues, progress: Progress
) -> Values:
    import torch

    digest = hashlib.sha256()
    n_nan = n_infinite = 0
    ends: list[float] = []
    for piece in pieces_of(info):
        progress.check()
        values = source.read(wanted, piece)
        progress.advance((piece.stop - piece.start) * info.dtype.size)
        if not info.dtype.is_float:
            digest.update(values.view(torch.uint8).numpy().data)
            continue
        if values.element_size() == 1:
            values = values.to(torch.float32)
        low, high = (float(end) for end in torch.aminmax(values))
        narrow = values.to(torch.float16)
        digest.update(narrow.view(torch.uint8).numpy().data)
        if _is_finite(low, high):
            ends += [low, high]
            continue
        n_nan += int(torch.isnan(values).sum())
        n_infinite += int(torch.isinf(values).sum())
        finite = values[torch.isfinite(values)]
        if finite.numel():
            ends += [float(end) for end in torch.aminmax(finite)]
    return Values(
        n_nan=n_nan,
        n_infinite=n_infinite,
        low=min(ends, default=None),
        high=max(ends, default=None),
        digest=digest.hexdigest(),
    )


def _is_finite(low: float, high: float) -> bool:
    # NaN compares as false with everything.
    return -float("inf") < low and high < float("inf")


def _findings(
    known: Recognised, values: Mapping[str, Values], header: Header, source: Source
) -> Iterator[Finding]:
    groups: defaultdict[Defect, dict[str, str]] = defaultdict(dict)
    for key, found in values.items():
        info = known.infos[key]
        if found.n_nan or found.n_infinite:
            groups[Defect.NON_FINITE][key] = (
                f"has {found.n_nan} NaN and {found.n_infinite} infinite of "
                f"{info.n_elements}"
            )
        elif info.n_elements > 1 and found.low == found.high and info.dtype.is_float:
            is_dead = found.low == 0 and len(info.shape) > 1
            defect = Defect.DEAD if is_dead else Defect.CONSTANT
            groups[defect][key] = f"{list(info.shape)} is {found.low:g} throughout"
        if is_position_ids(known, key):
            wrong = position_fault(info, known.values(header, key), source)
            if wrong:
                groups[Defect.POSITION_IDS][key] = wrong
    for defect, keys in groups.items():
        yield Finding(defect, tuple(keys), tuple(keys.values()))


def is_position_ids(known: Recognised, key: str) -> bool:
    """Whether a key is position ids that loaders read."""
    if not key.endswith("position_ids") or known.architecture is None:
        return False
    expected = expected_layout(known.architecture.id)
    return expected is None or key in expected


def position_fault(info: TensorInfo, wanted: FileValues, source: Source) -> str | None:
    """What is wrong with position ids, in a few words; None where they are right."""
    import torch

    values = source.read(wanted, Piece(0, info.n_elements)).to(torch.float64)
    right = torch.arange(values.numel(), dtype=torch.float64)
    words = []
    if info.dtype is not DType.I64:
        words.append(f"is {info.dtype.torch_name}")
    n_wrong = int((values != right).sum())
    if n_wrong:
        words.append(f"has {n_wrong} wrong numbers of {values.numel()}")
    return " and ".join(words) or None


def _digests(known: Recognised, values: Mapping[str, Values]) -> Mapping[str, str]:
    """A name for the values of each component, whatever its file calls the keys."""
    if known.architecture is None:
        return {}
    expected = expected_layout(known.architecture.id)
    lines: defaultdict[str, list[str]] = defaultdict(list)
    for key, found in values.items():
        role = known.role_of(key)
        name = known.relative(key)
        if role is None or name is None or role.treatment is not Treatment.MERGE:
            continue
        if expected and key not in expected:
            continue
        lines[role.component.value].append(f"{name} {found.digest}")
    return {
        component: hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[
            :_DIGITS
        ]
        for component, names in lines.items()
    }


def with_namesakes(
    inspections: Sequence[Inspection], references: Iterable[Inspection] = ()
) -> tuple[Inspection, ...]:
    """Tell which components of files have the same values.

    Args:
        inspections: With digests where they are known.
        references: Files whose components are known by name; not compared among each
            other, and named first.

    Returns:
        The inspections, each part with the other files that have its values.
    """
    holders: defaultdict[tuple[str, str], list[Any]] = defaultdict(list)
    for inspection in (*references, *inspections):
        for part in inspection.contents.parts:
            if part.digest:
                holders[part.component, part.digest].append(inspection.path)

    def named(part: Part, inspection: Inspection) -> Part:
        paths = holders.get((part.component, part.digest or ""), [])
        others = dict.fromkeys(p.name for p in paths if p != inspection.path)
        return replace(part, same_as=tuple(others))

    return tuple(
        replace(
            inspection,
            contents=replace(
                inspection.contents,
                parts=tuple(named(p, inspection) for p in inspection.contents.parts),
            ),
        )
        for inspection in inspections
    )


def shared_components(
    inspections: Sequence[Inspection],
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(component, files) of every component that several files share, largest first."""
    groups: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for inspection in inspections:
        for part in inspection.contents.parts:
            if part.digest:
                groups[part.component, part.digest].append(inspection.path.name)
    found = [(name, tuple(f)) for (name, _), f in groups.items() if len(f) > 1]
    return tuple(sorted(found, key=lambda item: -len(item[1])))
