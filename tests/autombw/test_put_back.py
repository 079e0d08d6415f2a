"""A study gives back what the user had: a file's own weights, or a merge in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lib_merge.autombw.runner import StudyRunner
from lib_merge.autombw.study import Study
from lib_merge.core.blocks import BlockId
from lib_merge.core.recipe import Setting, simple_recipe
from tests.support.fake_study_host import FakeStudyHost

Make = Callable[..., Study]
Run = Callable[[Study], StudyRunner]

USERS = simple_recipe(
    "weighted_sum",
    ("users_x.safetensors", "users_y.safetensors"),
    {"alpha": Setting(0.0, ((BlockId("IN04"), 0.8),))},
)


def test_merge_that_was_live_before_the_study_is_live_after_it(
    make_study: Make, host: FakeStudyHost, run: Run
) -> None:
    host.merger.merge(USERS)
    before = dict(host.loader.effective())
    run(make_study())
    assert host.loader.loaded() == Path("users_x.safetensors")
    assert host.loader.effective() == before
    assert host.merger.recipe() == USERS


def test_own_weights_that_were_loaded_before_the_study_are_loaded_after_it(
    make_study: Make, host: FakeStudyHost, run: Run
) -> None:
    run(make_study())
    assert host.loader.loaded() == Path("users_own.safetensors")
    assert host.merger.recipe() is None
