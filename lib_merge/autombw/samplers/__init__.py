"""Samplers: what to try next, as functions of the decided slots; by id in `SAMPLERS`.

A sampler of this folder keeps no state: asked with the same slots it answers the same,
however often it was asked before, in whichever process. Only Optuna's NSGA-II keeps a
population, which is grown again by asking it for every earlier slot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lib_merge.autombw.samplers import _cmaes, _gp, _optuna, _sobol
from lib_merge.autombw.samplers._task import Sampler, Task

__all__ = ["DEFAULT", "SAMPLERS", "Sampler", "SamplerInfo", "Task"]


@dataclass(frozen=True)
class SamplerInfo:
    """A sampler as the tab and the command line list it.

    Attributes:
        id: Its permanent id.
        label: What people call it.
        help: When to take it, in a sentence.
        make: Builds one for a study's search.
        is_multi: Whether it can follow two objectives.
    """

    id: str
    label: str
    help: str
    make: Callable[[], Sampler]
    is_multi: bool = True


DEFAULT = "gp"

_ALL = (
    SamplerInfo(
        "gp",
        "Gaussian process (blocks add up)",
        "The best for up to some hundred trials: knows how well each trial is known.",
        _gp.GaussianSampler,
    ),
    SamplerInfo(
        "gp_optuna",
        "Gaussian process (Optuna)",
        "Optuna's own; slower, and blind to how well each trial is known.",
        lambda: _optuna.OptunaSampler("gp"),
    ),
    SamplerInfo(
        "tpe",
        "Tree-structured Parzen estimator",
        "Sturdy with many choices among the axes and with many workers.",
        lambda: _optuna.OptunaSampler("tpe"),
    ),
    SamplerInfo(
        "cmaes",
        "CMA-ES",
        "For long searches of several hundred trials; one objective.",
        _cmaes.CmaSampler,
        is_multi=False,
    ),
    SamplerInfo(
        "nsga2",
        "NSGA-II",
        "A genetic search, for two objectives and many trials.",
        lambda: _optuna.OptunaSampler("nsga2"),
    ),
    SamplerInfo(
        "qmc",
        "Sobol points",
        "Covers the space evenly and learns nothing: for surveys.",
        _sobol.SobolSampler,
    ),
    SamplerInfo(
        "random",
        "Random points",
        "What every other one must beat.",
        lambda: _optuna.OptunaSampler("random"),
    ),
)

SAMPLERS: Mapping[str, SamplerInfo] = {info.id: info for info in _ALL}
"""Every sampler by id, the default first."""
