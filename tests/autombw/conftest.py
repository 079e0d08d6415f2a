"""Fixtures of the AutoMBW tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lib_merge.autombw.runner import StudyRunner
from lib_merge.autombw.study import Study, create_study, open_study
from tests.support.fake_scorer import FakeScorer
from tests.support.fake_study_host import FakeStudyHost, fake_settings


@pytest.fixture
def host(tmp_path: Path) -> FakeStudyHost:
    """A fake host with the user's own model loaded."""
    host = FakeStudyHost(tmp_path)
    host.loader.load(Path("users_own.safetensors"))
    return host


@pytest.fixture
def scorer() -> FakeScorer:
    """The scorer that reads the fake host's pixels."""
    return FakeScorer()


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., Study]:
    """Creates a small study; keywords change its settings."""

    def make(**changes: object) -> Study:
        return create_study(tmp_path, fake_settings(**changes))

    return make


@pytest.fixture
def run(host: FakeStudyHost, scorer: FakeScorer) -> Callable[[Study], StudyRunner]:
    """Opens a study's folder anew, as another process would, and runs it."""

    def start(study: Study) -> StudyRunner:
        fresh = open_study(study.folder)
        runner = StudyRunner(host, fresh, scorer, merger=host.merger)
        runner.run()
        return runner

    return start
