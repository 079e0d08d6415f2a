"""Several workers at one study: they share its work, and a death costs one trial."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lib_merge.autombw import _trials
from lib_merge.autombw._mirror import record_text
from lib_merge.autombw.crew import Crew
from lib_merge.autombw.ledger import _chunks
from lib_merge.autombw.records import COMPLETE, KILLED, TrialRecord
from lib_merge.autombw.sharing import (
    create_shared_study,
    join_shared_study,
    refresh_study,
    shared_studies,
)
from lib_merge.autombw.storage import StoragePlace
from lib_merge.autombw.study import Study, create_study, extend_study, open_study
from lib_merge.errors import CheckpointError, InputError, StudyError
from tests.support.fake_study_host import BLOCKS, fake_settings
from tests.support.postgres import postgres_server
from tests.support.worker_process import start_worker

no_sigkill = pytest.mark.skipif(os.name == "nt", reason="SIGKILL is a POSIX signal")


def draft(slot: int, attempt: int = 0) -> TrialRecord:
    """An attempt that is about to be claimed."""
    point = dict.fromkeys(BLOCKS, 0.25)
    return TrialRecord(-1, slot, attempt, "", point, COMPLETE)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A study with its own journal."""
    return create_study(tmp_path, fake_settings(n_trials=10, n_held_out=1))


def test_slot_is_claimed_by_one_worker_only(study: Study) -> None:
    """The second is refused while the first lives, and gets it after a failure."""
    with Crew(study) as first, Crew(study) as second:
        mine = first.claim(draft(3))
        assert mine is not None
        assert second.claim(draft(3)) is None
        assert [e.item for e in second.open_entries(second.search)] == ["3"]
        first.store(draft_failed(mine))
        retry = second.claim(draft(3, attempt=1))
        assert retry is not None
        assert retry.worker == second.worker
        (seen,) = second.sync()
        assert seen.reason == "no luck"


def draft_failed(claimed: TrialRecord) -> TrialRecord:
    """The same, failed."""
    return replace(claimed, state="failed", reason="no luck")


def test_many_threads_never_claim_one_slot_twice(study: Study) -> None:
    """Eight workers at once, forty claims for five slots."""
    won: list[int] = []
    lock = threading.Lock()
    barrier = threading.Barrier(8)

    def work() -> None:
        with Crew(study) as crew:
            barrier.wait()
            for slot in range(5):
                if crew.claim(draft(slot)) is not None:
                    with lock:
                        won.append(slot)
            barrier.wait()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [0, 1, 2, 3, 4]


def test_claim_after_the_end_of_the_search_is_withdrawn(study: Study) -> None:
    """Nobody begins a trial when another worker has ended the search."""
    with Crew(study) as first, Crew(study) as second:
        ending = first.end("The target is reached.")
        assert second.claim(draft(0)) is None
        assert second.ending() == ending
        assert second.end("Something else.") == ending
        assert first.search.entries() == ()


def test_dead_workers_attempt_is_marked_and_free_again(study: Study) -> None:
    """A killed worker's trial has a record that says so, and no score."""
    gone = Crew(study)
    with gone:
        claimed = gone.claim(draft(0))
    assert claimed is not None
    with Crew(study) as crew:
        (lost,) = crew.sync()
        assert (lost.number, lost.state, lost.score) == (0, KILLED, None)
        assert crew.claim(draft(0, attempt=1)) is not None


def run_to_the_end(folders: list[Path], go: Path, delay_s: float) -> None:
    """Several workers, from one signal to the last one's end."""
    workers = [
        start_worker(folder, delay_s=delay_s, go=go, is_helper=i > 0)
        for i, folder in enumerate(folders)
    ]
    go.touch()
    for worker in workers:
        assert worker.wait(timeout=180) == 0


@pytest.mark.slow
def test_two_processes_share_the_work(tmp_path: Path) -> None:
    """Two work at the same time, and every slot is done once."""
    settings = fake_settings(n_trials=20, n_held_out=1)
    shared = create_study(tmp_path / "shared", settings)
    run_to_the_end([shared.folder, shared.folder], tmp_path / "go", 0.25)
    records = open_study(shared.folder).records()
    assert sorted(r.slot for r in records) == list(range(20))
    assert all(r.is_complete for r in records)
    # A trial that began before the other worker was there names nobody.
    assert len({r.worker for r in records} - {""}) == 2
    result = open_study(shared.folder).result()
    assert result is not None
    assert result.ending == "All 20 trials are done."
    assert not open_study(shared.folder).is_running()


def kill_one_of_two(first: Path, second: Path) -> None:
    """Two workers; the first is killed in the middle of a trial."""
    study = open_study(second)
    victim = start_worker(first, delay_s=0.05, is_helper=False)
    helper = start_worker(second, delay_s=0.05)
    wait_until(lambda: len(study.records()) >= 6, victim, helper)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert helper.wait(timeout=180) == 0


def wait_until(
    condition: Callable[[], bool], *processes: subprocess.Popen[str]
) -> None:
    """Wait up to half a minute, while the processes live."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)


def check_one_trial_lost(study: Study, n_trials: int) -> None:
    """Every slot is scored, and at most one attempt was lost."""
    records = study.records()
    assert sum(r.state == KILLED for r in records) <= 1
    done = [r for r in records if r.is_complete]
    assert sorted(r.slot for r in done) == list(range(n_trials))
    assert study.result() is not None


@no_sigkill
def test_worker_that_is_killed_loses_one_trial(tmp_path: Path) -> None:
    """The other one takes its trial over and ends the study."""
    study = create_study(tmp_path, fake_settings(n_trials=20, n_held_out=1))
    kill_one_of_two(study.folder, study.folder)
    check_one_trial_lost(open_study(study.folder), 20)


# Storages that machines share


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL server of our own."""
    with postgres_server() as url:
        yield url


def models(folder: Path) -> tuple[str, ...]:
    """Two files that can be hashed."""
    folder.mkdir(exist_ok=True)
    for name in ("model_a", "model_b"):
        (folder / f"{name}.safetensors").write_bytes(name.encode())
    return tuple(str(folder / f"{n}.safetensors") for n in ("model_a", "model_b"))


@pytest.fixture(params=["postgresql", "journal", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> StoragePlace:
    """A storage outside of any study's folder."""
    urls = {
        "journal": f"journal:{tmp_path / 'shared.log'}",
        "sqlite": f"sqlite:///{tmp_path / 'shared.db'}",
    }
    if request.param == "postgresql":
        return StoragePlace.parse(request.getfixturevalue("postgres"))
    return StoragePlace.parse(urls[request.param])


@no_sigkill
def test_machines_share_a_storage_and_one_is_killed(
    place: StoragePlace, tmp_path: Path
) -> None:
    """Two folders, one storage: both end with the whole study but for pictures."""
    files = models(tmp_path / "models")
    name = f"shared-{tmp_path.name}-{place.url[:3]}"
    settings = fake_settings(name=name, n_trials=14, n_held_out=1, models=files)
    first = create_shared_study(tmp_path / "one", settings, place)
    second = join_shared_study(tmp_path / "two", place, name)
    assert name in shared_studies(place)
    kill_one_of_two(first.folder, second.folder)
    check_one_trial_lost(open_study(second.folder), 14)
    refreshed = refresh_study(open_study(first.folder))
    check_one_trial_lost(refreshed, 14)
    assert refreshed.result() == open_study(second.folder).result()
    pictures = {p.parent.name for p in second.folder.glob("trials/*/*.png")}
    assert pictures < {f"{r.number:04d}" for r in second.records()}


def test_slow_worker_that_is_given_up_while_it_stores_counts_once(
    place: StoragePlace, tmp_path: Path
) -> None:
    """Whoever closes the attempt first decides; nobody sees it both ways."""
    name = f"slow-{tmp_path.name}-{place.url[:3]}"
    files = models(tmp_path / "models")
    settings = fake_settings(name=name, n_held_out=1, models=files)
    first = create_shared_study(tmp_path / "one", settings, place)
    second = join_shared_study(tmp_path / "two", place, name)
    with Crew(first) as slow, Crew(second) as other:
        mine = slow.claim(draft(0))
        assert mine is not None
        storage = other.search._storage
        close = storage.set_trial_state_values

        def close_late(trial_id: int, *more: object) -> bool:
            storing = slow.search._storage
            for key, value in _chunks(record_text(replace(mine, score=0.9))).items():
                storing.set_trial_user_attr(trial_id, key, value)
            return bool(close(trial_id, *more))

        storage.set_trial_state_values = close_late
        other.is_alive = lambda worker: worker == other.worker  # type: ignore[method-assign]
        (given_up,) = other.sync()
        assert (given_up.state, given_up.score) == (KILLED, None)
        assert slow.store(replace(mine, score=0.9)) == given_up
        storage.set_trial_state_values = close
    for study in (first, second):
        (seen,) = refresh_study(open_study(study.folder)).records()
        assert (seen.state, seen.score) == (KILLED, None)


def test_models_are_found_by_content_when_joining(tmp_path: Path) -> None:
    """Another machine's folder counts, another file of the same name does not."""
    place = StoragePlace.parse(f"journal:{tmp_path / 'shared.log'}")
    files = models(tmp_path / "here")
    create_shared_study(tmp_path / "one", fake_settings(models=files), place)
    moved = tmp_path / "there"
    (tmp_path / "here").rename(moved)
    with pytest.raises(CheckpointError, match=r"merges model_a.safetensors, which is"):
        join_shared_study(tmp_path / "two", place)
    joined = join_shared_study(tmp_path / "two", place, folders=[moved])
    assert joined.settings.models == tuple(
        str(moved / Path(file).name) for file in files
    )
    (moved / "model_b.safetensors").write_bytes(b"other")
    with pytest.raises(CheckpointError, match="is not the model that the study was"):
        join_shared_study(tmp_path / "three", place, folders=[moved])


def test_study_of_the_same_name_is_refused_in_a_storage(tmp_path: Path) -> None:
    """Also from another folder."""
    place = StoragePlace.parse(f"journal:{tmp_path / 'shared.log'}")
    settings = fake_settings(models=models(tmp_path / "models"))
    create_shared_study(tmp_path / "one", settings, place)
    with pytest.raises(StudyError, match="join it, or choose another name"):
        create_shared_study(tmp_path / "two", settings, place)
    with pytest.raises(StudyError, match=r"no study 'gone'; name one of: fake"):
        join_shared_study(tmp_path / "two", place, "gone")


def test_more_trials_reach_the_other_machine(tmp_path: Path) -> None:
    """Raised in one folder, seen in the other, and the search goes on."""
    place = StoragePlace.parse(f"journal:{tmp_path / 'shared.log'}")
    settings = fake_settings(n_trials=4, models=models(tmp_path / "models"))
    first = create_shared_study(tmp_path / "one", settings, place)
    second = join_shared_study(tmp_path / "two", place)
    with Crew(first) as crew:
        crew.end("All 4 trials are done.")
    extend_study(first, 6)
    assert refresh_study(second).settings.n_trials == 6
    with Crew(open_study(second.folder)) as crew:
        assert crew.ending() is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("redis://x", "is no storage; use postgresql"),
        ("journal:", "names no file"),
        ("mysql://u:secret@h/db", "pip install pymysql"),
        ("studies.db", "is no storage"),
    ],
)
def test_storage_that_cannot_be_used_is_refused(
    text: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to type or install instead, and without the password."""
    import importlib.util

    real = importlib.util.find_spec
    gone = ("pymysql", "MySQLdb")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n in gone else real(n)
    )
    with pytest.raises(InputError, match=message) as caught:
        StoragePlace.parse(text)
    assert "secret" not in str(caught.value)


def test_server_that_is_not_there_is_named_without_password(tmp_path: Path) -> None:
    """One sentence, before any work."""
    pytest.importorskip("psycopg2")
    place = StoragePlace("postgresql+psycopg2://me:secret@127.0.0.1:1/db")
    assert place.shown == "postgresql+psycopg2://me:***@127.0.0.1:1/db"
    with pytest.raises(StudyError, match=r"cannot be opened: .*Check that") as caught:
        shared_studies(place)
    assert "secret" not in str(caught.value)


def test_worker_waits_for_the_others_without_work(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Polling is what is waited with; it must be short beside a trial."""
    assert _trials.POLL_S <= 0.5
    with Crew(study) as first, Crew(study) as second:
        assert second.others() == (first.worker,)
    with Crew(study) as alone:
        assert alone.others() == ()
