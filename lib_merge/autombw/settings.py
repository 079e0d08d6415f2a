"""Settings of a study: everything it is told before it starts, and what it renders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from lib_merge.autombw._files import folder_name
from lib_merge.autombw.diversity import OBJECTIVE, DiversitySettings
from lib_merge.autombw.fidelity import FidelitySettings
from lib_merge.autombw.payloads import Payload
from lib_merge.autombw.pruning import PruningSettings
from lib_merge.autombw.scoring import Judge, ScoringSettings
from lib_merge.autombw.search import sampler_info
from lib_merge.autombw.space import (
    METHOD_AXIS,
    Axis,
    BlockRange,
    Point,
    Space,
    StartPoint,
)
from lib_merge.autombw.stopping import StoppingSettings
from lib_merge.autombw.tally import check_tally
from lib_merge.core.blocks import BlockId
from lib_merge.core.dtypes import COMPUTE_DTYPES, SAVE_DTYPES, DType
from lib_merge.core.ports import RenderRequest
from lib_merge.core.recipe import NonFinite, Recipe, simple_recipe
from lib_merge.errors import StudyError
from lib_merge.methods import methods

FORMAT = "mergelab-study"
VERSION = 1

HELD_OUT_OFFSET = 1_000_000_007
"""Added to a payload's seed for pictures that the search never saw."""


@dataclass(frozen=True)
class StudySettings:
    """Everything that a study is told before it starts; frozen with it.

    Attributes:
        name: The study's name; its folder is named by it.
        method: The merge method's id.
        models: Model files, in the method's order.
        payloads: What is rendered, whole, so that edited files change nothing.
        arch_id: The models' architecture.
        ranges: Every weighted block, free or fixed.
        param: The method's parameter that is searched.
        scorer: The scorer's id.
        scorer_weights: The scorer's weights file, or None for its own.
        tally: How a trial's scores become one (see `tally.TALLIES`).
        sampler: gp, tpe, cmaes or random.
        n_trials: Points to score, the start points included.
        seed: Of the sampler, and of payloads whose own seed is negative.
        n_seeds: Passes over the payloads a trial, each with other seeds.
        n_held_out: Passes over the payloads, with unseen seeds, for the finalists.
        n_finalists: How many of the best points are scored again at the end.
        compute_dtype: What merges compute in: float32 or float64.
        save_dtype: What merged tensors are rounded to, or "keep".
        checkpoint: Where to save the winner, or None for its recipe only.
        max_failures: Failed attempts in a row that stop the study.
        scoring: Further scorers, their weights and normalisation.
        held_out_payloads: Rendered for the finalists only, beside the others.
        pruning: When a trial is given up after some of its pictures.
        stopping: When the search ends before its last trial.
        fidelity: Cheap rungs that screen trials.
        diversity: What the unlikeness of a prompt's pictures is used for.
        axes: What is searched beside the blocks' values.
        methods: What the axis "method" chooses among; empty without such an axis.
        starts: Points to score first, after the baselines.
        origin: What file it was imported from; such a study is finished, and has no
            payloads. "" for one of our own.
        on_non_finite: What happens where a model holds NaN or infinity: stop,
            leave_out (of pools) or keep.
    """

    name: str
    method: str
    models: tuple[str, ...]
    payloads: tuple[Payload, ...]
    arch_id: str
    ranges: tuple[BlockRange, ...]
    param: str = "alpha"
    scorer: str = "image_reward"
    scorer_weights: str | None = None
    tally: str = "arithmetic"
    sampler: str = "gp"
    n_trials: int = 80
    seed: int = 0
    n_seeds: int = 1
    n_held_out: int = 2
    n_finalists: int = 5
    compute_dtype: str = "float32"
    save_dtype: str = "float16"
    checkpoint: str | None = None
    max_failures: int = 5
    scoring: ScoringSettings = field(default_factory=ScoringSettings)
    held_out_payloads: tuple[Payload, ...] = ()
    pruning: PruningSettings = field(default_factory=PruningSettings)
    stopping: StoppingSettings = field(default_factory=StoppingSettings)
    fidelity: FidelitySettings = field(default_factory=FidelitySettings)
    diversity: DiversitySettings = field(default_factory=DiversitySettings)
    axes: tuple[Axis, ...] = ()
    methods: tuple[str, ...] = ()
    starts: tuple[StartPoint, ...] = ()
    origin: str = ""
    on_non_finite: str = NonFinite.STOP.value

    def __post_init__(self) -> None:
        sampler_info(self.sampler)
        problems = list(_problems(self))
        if problems:
            raise StudyError("\n".join(problems))
        check_tally(self.tally)
        folder_name(self.name)

    @property
    def n_images(self) -> int:
        """Pictures a trial."""
        return self.n_seeds * sum(p.n_images for p in self.payloads)

    @property
    def n_held_out_images(self) -> int:
        """Pictures a candidate at the end."""
        payloads = (*self.payloads, *self.held_out_payloads)
        return self.n_held_out * sum(p.n_images for p in payloads)

    @property
    def judges(self) -> tuple[Judge, ...]:
        """Every scorer, with its weight and weights file."""
        alone = Judge(self.scorer, weights_file=self.scorer_weights)
        return self.scoring.judges or (alone,)

    @property
    def space(self) -> Space:
        """Everything that is searched or fixed."""
        return Space(self.ranges, self.axes, self.param)

    @property
    def n_objectives(self) -> int:
        """2 where diversity is traded against the score, else 1."""
        return 2 if self.diversity.use == OBJECTIVE else 1

    def start_points(self) -> tuple[StartPoint, ...]:
        """What is scored before the sampler is asked."""
        return self.space.start_points(self.starts)

    def method_of(self, point: Point) -> str:
        """The id of the method that a point merges with."""
        number = point.get(METHOD_AXIS)
        is_choice = number is not None and bool(self.methods)
        return self.methods[int(number or 0)] if is_choice else self.method

    def recipe(self, point: Point) -> Recipe:
        """The merge that a point stands for."""
        space = self.space
        whole = space.whole(point)
        method = methods().get(self.method_of(whole))
        defaults = {spec.name: spec.default for spec in method.params}
        keep = self.save_dtype == "keep"
        return simple_recipe(
            method.id,
            self.models,
            space.settings(whole, defaults),
            compute_dtype=DType.from_name(self.compute_dtype),
            save_dtype=None if keep else DType.from_name(self.save_dtype),
            on_non_finite=NonFinite(self.on_non_finite),
        )

    def to_json(self) -> dict[str, Any]:
        """A plain JSON object; `from_json` gives equal settings back."""
        return {"format": FORMAT, "version": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Any, *, where: str = "settings.json") -> StudySettings:
        """Read what `to_json` wrote.

        Raises:
            StudyError: No study settings, a newer version, or a damaged field.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise StudyError(f"{where} holds no MergeLab study settings.")
        if data.get("version") != VERSION:
            raise StudyError(
                f"{where} is of version {data.get('version')!r}, which this MergeLab "
                f"(version {VERSION}) cannot read; update MergeLab."
            )
        values = {k: v for k, v in data.items() if k not in ("format", "version")}
        try:
            values["models"] = tuple(values["models"])
            values["ranges"] = tuple(
                BlockRange(BlockId(r["block"]), r["low"], r["high"], r.get("group", ""))
                for r in values["ranges"]
            )
            for key in ("payloads", "held_out_payloads"):
                values[key] = tuple(
                    Payload.from_json(payload, where=where)
                    for payload in values.get(key, ())
                )
            if "scoring" in values:
                values["scoring"] = ScoringSettings.from_json(values["scoring"])
            values |= _policies(values)
            values["axes"] = tuple(map(Axis.from_json, values.get("axes", ())))
            values["methods"] = tuple(values.get("methods", ()))
            values["starts"] = tuple(
                StartPoint(start["label"], dict(start["point"]))
                for start in values.get("starts", ())
            )
            return cls(**values)
        except (KeyError, TypeError, AttributeError) as fault:
            raise StudyError(
                f"{where} is damaged: {type(fault).__name__} at {fault}."
            ) from fault


def _policies(values: dict[str, Any]) -> dict[str, Any]:
    """How a study prunes, stops and screens; files from before do none of it."""
    return {
        "pruning": PruningSettings(**values.get("pruning", {"is_on": False})),
        "stopping": StoppingSettings(**values.get("stopping", {"n_without_gain": 0})),
        "fidelity": FidelitySettings.from_json(values.get("fidelity", {})),
        "diversity": DiversitySettings(**values.get("diversity", {})),
    }


def _problems(settings: StudySettings) -> Iterator[str]:
    if not settings.payloads and not settings.origin:
        yield "A study needs at least one payload; choose a payload file."
    names = {p.name for p in settings.payloads}
    for name in sorted(names & {p.name for p in settings.held_out_payloads}):
        yield f"Payload '{name}' is both searched with and held out; rename one."
    if len(settings.models) < 2:
        yield "A study needs at least two models; choose A and B."
    if not settings.space.free:
        yield "Every block is fixed; free at least one to search."
    names = {axis.name for axis in settings.space.axes}
    for start in settings.starts:
        if set(start.point) != names:
            yield (
                f"The start point '{start.label}' is of another space; give a value "
                "for every axis and for nothing else."
            )
    if settings.n_objectives > 1 and not sampler_info(settings.sampler).is_multi:
        yield (
            f"The sampler {settings.sampler} follows one objective; choose another "
            "one, or use diversity as a constraint."
        )
    for name in ("n_trials", "n_seeds", "n_held_out", "n_finalists", "max_failures"):
        if getattr(settings, name) < 1:
            yield f"{name} is {getattr(settings, name)}; it must be at least 1."
    policies = [policy.value for policy in NonFinite]
    if settings.on_non_finite not in policies:
        yield f"Non-finite '{settings.on_non_finite}': use {', '.join(policies)}."
    if settings.compute_dtype not in [d.torch_name for d in COMPUTE_DTYPES]:
        yield f"Precision {settings.compute_dtype}: use float32 or float64."
    saves = [d.torch_name for d in SAVE_DTYPES]
    if settings.save_dtype not in [*saves, "keep"]:
        yield f"Save type {settings.save_dtype}: use keep, {', '.join(saves)}."


@dataclass(frozen=True)
class Shot:
    """One picture of a trial: which payload, which seed, which file."""

    file: str
    payload: Payload
    request: RenderRequest


def shots(settings: StudySettings, *, is_held_out: bool = False) -> tuple[Shot, ...]:
    """Every picture of a trial, or of a candidate on held-out seeds, in order."""
    n_passes = settings.n_held_out if is_held_out else settings.n_seeds
    base = HELD_OUT_OFFSET if is_held_out else 0
    payloads = settings.payloads
    if is_held_out:
        payloads = (*payloads, *settings.held_out_payloads)
    found = []
    for p, payload in enumerate(payloads):
        for turn in range(n_passes):
            offset = base + turn * payload.n_images
            for i, request in enumerate(payload.requests(offset)):
                number = turn * payload.n_images + i
                found.append(Shot(f"p{p:02d}_s{number}.png", payload, request))
    return tuple(found)
