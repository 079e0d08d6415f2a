"""Downloads of weights: resumed, checked, shown, and whole or not there."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from lib_merge.autombw.scorers import image_reward
from lib_merge.autombw.scorers._download import Source, download
from lib_merge.demo import JUDGE_WEIGHTS
from lib_merge.errors import Cancelled, ScorerError

DATA = bytes(range(256)) * 9000
SHA = hashlib.sha256(DATA).hexdigest()


class Hub:
    """Serves files with ranges as the Hugging Face hub does: by way of a redirect."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"/w.pt": DATA}
        self.sha: str | None = SHA
        self.has_ranges = True
        self.cut_at: int | None = None
        self.ranges: list[str | None] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if not self.path.startswith("/cdn"):
                    self.send_response(302)
                    if hub.sha is not None:
                        self.send_header("X-Linked-Etag", f'"{hub.sha}"')
                    self.send_header("Location", f"/cdn{self.path}")
                    self.end_headers()
                    return
                name = self.path.removeprefix("/cdn")
                if name not in hub.files:
                    self.send_error(404)
                    return
                self._send(hub.files[name])

            def _send(self, data: bytes) -> None:
                asked = self.headers.get("Range")
                hub.ranges.append(asked)
                start = 0
                if asked and hub.has_ranges:
                    start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(data):
                    self.send_error(416)
                    return
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(data) - start))
                self.end_headers()
                end, hub.cut_at = hub.cut_at, None
                self.wfile.write(data[start:end])

            def log_message(self, *args: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    hub = Hub()
    yield hub
    hub.close()


class Shown:
    """Progress that was shown."""

    def __init__(self, stop_after: int = 10**12) -> None:
        self.phases: list[tuple[str, int]] = []
        self.done: list[int] = []
        self._stop_after = stop_after

    def start(self, label: str, total: int, unit: str = "B") -> None:
        self.phases.append((label, total))
        self.done.append(0)

    def advance(self, amount: int) -> None:
        self.done[-1] += amount

    def check(self) -> None:
        if sum(self.done) >= self._stop_after:
            raise Cancelled("stop")


def test_file_arrives_whole_checked_and_shown(hub: Hub, tmp_path: Path) -> None:
    """Against the hash that the hub's redirect names."""
    shown = Shown()
    target = tmp_path / "deep" / "w.pt"
    assert download(Source(f"{hub.url}/w.pt"), target, shown) == target
    assert target.read_bytes() == DATA
    assert shown.phases == [
        ("Downloading w.pt", len(DATA)),
        ("Checking w.pt", len(DATA)),
    ]
    assert shown.done == [len(DATA)] * 2
    assert list(target.parent.iterdir()) == [target]


def test_broken_connection_is_resumed_where_it_broke(hub: Hub, tmp_path: Path) -> None:
    """Nothing is loaded twice."""
    hub.cut_at = 1_000_000
    target = download(Source(f"{hub.url}/w.pt"), tmp_path / "w.pt")
    assert target.read_bytes() == DATA
    assert hub.ranges == [None, "bytes=1000000-"]


def test_stopped_download_goes_on_later(hub: Hub, tmp_path: Path) -> None:
    """What was received stays beside the target, which is not there."""
    target = tmp_path / "w.pt"
    with pytest.raises(Cancelled):
        download(Source(f"{hub.url}/w.pt"), target, Shown(stop_after=1 << 20))
    part = tmp_path / "w.pt.part"
    assert not target.exists()
    n_have = part.stat().st_size
    assert 0 < n_have < len(DATA)
    download(Source(f"{hub.url}/w.pt"), target)
    assert target.read_bytes() == DATA
    assert hub.ranges[-1] == f"bytes={n_have}-"


@pytest.mark.parametrize("has_ranges", [True, False], ids=["ranges", "none"])
def test_part_that_is_whole_already_is_only_checked(
    has_ranges: bool, hub: Hub, tmp_path: Path
) -> None:
    """A server without ranges sends all of it again, which takes its place."""
    hub.has_ranges = has_ranges
    (tmp_path / "w.pt.part").write_bytes(DATA)
    assert download(Source(f"{hub.url}/w.pt"), tmp_path / "w.pt").read_bytes() == DATA


@pytest.mark.parametrize("known", [None, "0" * 64], ids=["hub", "given"])
def test_wrong_content_is_removed_and_told(
    known: str | None, hub: Hub, tmp_path: Path
) -> None:
    """Whether the hash is the hub's or known beforehand."""
    if known is None:
        hub.sha = "1" * 64
    with pytest.raises(ScorerError, match=r"has the SHA-256 .* but .* was published"):
        download(Source(f"{hub.url}/w.pt", known), tmp_path / "w.pt")
    assert list(tmp_path.iterdir()) == []


def test_file_without_a_checksum_is_taken_with_a_warning(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its length is checked at least."""
    hub.sha = None
    download(Source(f"{hub.url}/w.pt"), tmp_path / "w.pt")
    assert "names no checksum" in caplog.text


def test_missing_page_and_missing_network_are_told(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With where to put the file by hand."""
    target = tmp_path / "w.pt"
    with pytest.raises(
        ScorerError, match=r"cannot be downloaded \(Not Found\).*put it"
    ):
        download(Source(f"{hub.url}/gone.pt"), target)
    with pytest.raises(
        ScorerError, match=r"cannot be downloaded \(.*refused.*put it at"
    ):
        download(Source("http://127.0.0.1:9/w.pt"), target)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ScorerError, match="HF_HUB_OFFLINE keeps it off the network"):
        download(Source(f"{hub.url}/w.pt"), target)


def test_image_reward_downloads_what_it_lacks_once(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights and words, here those of the demo's judge; then it is there."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    torch.save(load_file(JUDGE_WEIGHTS), tmp_path / "made.pt")
    hub.files["/ImageReward.pt"] = (tmp_path / "made.pt").read_bytes()
    hub.files["/vocab.txt"] = JUDGE_WEIGHTS.with_name("vocab.txt").read_bytes()
    hub.sha = None
    monkeypatch.setattr(image_reward, "URL", f"{hub.url}/ImageReward.pt")
    monkeypatch.setattr(image_reward, "VOCABULARY_URL", f"{hub.url}/vocab.txt")
    assert image_reward.SCORER.unavailable_reason() is None
    image_reward.SCORER.load().close()
    n_asked = len(hub.ranges)
    assert n_asked == 2
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert image_reward.SCORER.unavailable_reason() is None
    image_reward.SCORER.load().close()
    assert len(hub.ranges) == n_asked
