"""Checks before a study starts: models, their numbers, scorers, disk and memory."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lib_merge.autombw.settings import StudySettings
from lib_merge.checkpoint.header import Header, read_header
from lib_merge.checkpoint.reader import CheckpointReader
from lib_merge.core.ports import Progress
from lib_merge.core.recipe import NonFinite
from lib_merge.errors import InputError, MergeError

_log = logging.getLogger(__name__)

CHUNK = 1 << 24
"""Values that are looked at at once."""

BYTES_A_PIXEL = 1.8
"""Of a stored picture: PNG of a photograph-like picture takes 1.2 to 1.8."""

MEMORY_MARGIN_BYTES = 1 << 30
"""Left for the host, the scorer and the pictures beside what merging takes."""

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Finding:
    """Something that a check found.

    Attributes:
        kind: "error" when the study cannot run so, or "warning".
        text: What, where, and what to do.
    """

    kind: str
    text: str


def check_settings(
    settings: StudySettings,
    folder: Path,
    *,
    progress: Progress | None = None,
    is_deep: bool = True,
) -> tuple[Finding, ...]:
    """Everything about a study that can be known before the first picture.

    Args:
        settings: The study's.
        folder: Where studies are kept.
        progress: Advanced by bytes while models are read.
        is_deep: Whether the models' values are read, to find NaN and infinity.
    """
    found = list(_model_faults(settings))
    if not found and is_deep:
        found += _value_faults(settings, progress)
    found += _scorer_faults(settings)
    found += _disk_faults(settings, folder)
    return tuple(found)


def check_before_start(
    settings: StudySettings, folder: Path, *, progress: Progress | None = None
) -> tuple[str, ...]:
    """Raise unless a study can run.

    Returns:
        Warnings.

    Raises:
        InputError: Every error at once.
        Cancelled: The user stopped it.
    """
    found = check_settings(settings, folder, progress=progress)
    errors = [finding.text for finding in found if finding.kind == ERROR]
    if errors:
        raise InputError("\n".join(errors))
    return tuple(finding.text for finding in found)


def _model_faults(settings: StudySettings) -> Iterator[Finding]:
    """Missing or damaged files, mixed architectures, shapes, A equal to B; memory."""
    from lib_merge.engine.outlook import outlook_of
    from lib_merge.engine.planning import plan_recipe

    point = settings.start_points()[0].point
    try:
        plan = plan_recipe(settings.recipe(point))
        needed = outlook_of(plan).memory_bytes + MEMORY_MARGIN_BYTES
    except MergeError as fault:
        yield Finding(ERROR, str(fault))
        return
    free = free_memory_bytes()
    if free is not None and free < needed:
        yield Finding(
            WARNING,
            f"{free >> 20} MiB of memory are free, and merging beside a picture takes "
            f"about {needed >> 20} MiB; close something, or trials may fail.",
        )


def free_memory_bytes() -> int | None:
    """Memory that programs can still take, or None where the system does not say."""
    try:
        import psutil  # type: ignore[import-untyped]
    except ImportError:
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
        except (AttributeError, ValueError, OSError):
            return None
    return int(psutil.virtual_memory().available)


def _value_faults(
    settings: StudySettings, progress: Progress | None
) -> Iterator[Finding]:
    """Models that hold NaN or infinity: every trial would fail, or be spoilt."""
    headers = [read_header(Path(model)) for model in settings.models]
    if progress is not None:
        progress.start("Reading the models", sum(h.n_bytes for h in headers))
    policy = NonFinite(settings.on_non_finite)
    for model, header in zip(settings.models, headers, strict=True):
        bad = _non_finite(header, progress)
        if not bad:
            continue
        key, count = next(iter(bad.items()))
        text = (
            f"{Path(model).name} holds NaN or infinity in {len(bad)} tensors, the "
            f"first is {key} ({count} values)"
        )
        if policy is NonFinite.STOP:
            text += (
                "; every merge with it would fail. Repair the file, or let the study "
                "keep them (non-finite: keep)."
            )
            yield Finding(ERROR, text)
        else:
            yield Finding(WARNING, f"{text}; as asked, the study goes on with it.")


def _non_finite(header: Header, progress: Progress | None) -> dict[str, int]:
    """How many values of each float tensor are NaN or infinite, if any."""
    import torch

    bad: dict[str, int] = {}
    with CheckpointReader(header) as reader:
        for key, info in header.infos.items():
            if progress is not None:
                progress.check()
                progress.advance(info.n_elements * info.dtype.size)
            if not info.dtype.is_float:
                continue
            for start in range(0, info.n_elements, CHUNK):
                stop = min(start + CHUNK, info.n_elements)
                values = reader.read(key, start, stop)
                if values.element_size() < 2:
                    values = values.to(torch.float32)
                if not bool(torch.isfinite(values).all()):
                    n_bad = int((~torch.isfinite(values)).sum())
                    bad[key] = bad.get(key, 0) + n_bad
    return bad


def _scorer_faults(settings: StudySettings) -> Iterator[Finding]:
    """Scorers that are not there, or whose library or weights are missing."""
    from lib_merge.autombw.scorers import scorers

    for judge in settings.judges:
        try:
            scorer = scorers().get(judge.id)
        except MergeError as fault:
            yield Finding(ERROR, str(fault))
            continue
        weights = Path(judge.weights_file) if judge.weights_file else None
        if weights is not None and not weights.exists():
            yield Finding(
                ERROR, f"The weights of {judge.id}, {weights}, are not there."
            )
            continue
        reason = scorer.unavailable_reason(weights=weights, options=dict(judge.options))
        if reason is not None:
            yield Finding(ERROR, f"The scorer {judge.id} cannot be used: {reason}")


def picture_bytes(settings: StudySettings) -> int:
    """About what one trial's pictures take on the disk."""
    total = 0.0
    for payload in settings.payloads:
        pixels = payload.width * payload.height
        if payload.enable_hr:
            scaled = payload.hr_scale**2 * pixels
            pixels = payload.hr_resize_x * payload.hr_resize_y or round(scaled)
        total += pixels * BYTES_A_PIXEL * payload.n_images
    return round(total * settings.n_seeds)


def disk_need_bytes(settings: StudySettings) -> int:
    """About what a whole study takes on the disk, the saved winner apart."""
    held_out = settings.n_held_out / settings.n_seeds
    n_candidates = settings.n_finalists + len(settings.space.baselines())
    return round(
        picture_bytes(settings) * (settings.n_trials + n_candidates * held_out)
    )


def _disk_faults(settings: StudySettings, folder: Path) -> Iterator[Finding]:
    needed = disk_need_bytes(settings)
    free = shutil.disk_usage(_existing(folder)).free
    if free < needed:
        yield Finding(
            WARNING,
            f"The disk of {folder} has {free >> 20} MiB left, and the pictures of "
            f"{settings.n_trials} trials take about {needed >> 20} MiB; the study "
            "stops in time and can be resumed.",
        )
    if settings.checkpoint is None:
        return
    output = Path(settings.checkpoint)
    size = max(
        (Path(m).stat().st_size for m in settings.models if _is_file(m)), default=0
    )
    if shutil.disk_usage(_existing(output.parent)).free < size:
        yield Finding(
            ERROR,
            f"The disk of {output} has no room for a checkpoint of {size >> 20} MiB; "
            "free some, or save elsewhere.",
        )


def _is_file(path: str) -> bool:
    return Path(path).is_file()


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder
