"""http_judge against a server on this machine: both forms, faults, retries, stops."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from PIL import Image

from lib_merge.autombw.scorers import http_judge
from lib_merge.autombw.scorers.http_judge import SCORER
from lib_merge.errors import Cancelled, ScorerError

PICTURES = [Image.new("RGB", (8, 6), (200, 10, 10)), Image.new("RGB", (8, 6))]
Reply = tuple[int, Any, dict[str, str]]


class Server:
    """Answers with what `reply` returns, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.reply: Callable[[int, dict[str, Any]], Reply] = lambda n, body: (
            200,
            {"scores": [_redness(item["image"]) for item in body["items"]]},
            {},
        )
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = json.loads(self.rfile.read(length))
                outer.asked.append(body)
                outer.headers.append(dict(self.headers))
                status, answer, extra = outer.reply(len(outer.asked), body)
                data = answer if isinstance(answer, bytes) else json.dumps(answer)
                self.send_response(status)
                for name, value in extra.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data if isinstance(data, bytes) else data.encode())

            def log_message(self, *args: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/score"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _redness(data: str) -> float:
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.format == "PNG"
    return image.getpixel((0, 0))[0] / 10  # type: ignore[index,no-any-return]


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of this test's own."""
    server = Server()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits between attempts are noted, not waited for."""
    waits: list[float] = []
    monkeypatch.setattr(
        http_judge._Remote, "_wait", lambda self, seconds: waits.append(seconds)
    )
    return waits


def test_json_form_sends_a_batch_and_reads_its_scores(server: Server) -> None:
    """Prompts and lossless pictures, in order; loading tries it with a grey one."""
    loaded = SCORER.load(options={"url": server.url})
    assert server.asked[0]["items"][0]["prompt"] == "a grey square"
    assert loaded.score(PICTURES, ["red", "black"]) == [20.0, 0.0]
    assert server.asked[1]["protocol"] == "mergelab-judge"
    assert server.asked[1]["version"] == 1
    assert [item["prompt"] for item in server.asked[1]["items"]] == ["red", "black"]
    loaded.close()


def test_openai_form_asks_a_chat_for_every_picture(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Model, key from the environment, instruction; the last number counts."""
    words = "Out of 10, I give it 7.5"
    server.reply = lambda n, body: (
        200,
        {"choices": [{"message": {"content": words}}]},
        {},
    )
    monkeypatch.setenv("MY_KEY", "secret")
    loaded = SCORER.load(
        options={
            "url": server.url,
            "form": "openai",
            "model": "judge-7b",
            "key_variable": "MY_KEY",
        }
    )
    assert loaded.score(PICTURES, ["a {cat}", "b"]) == [7.5, 7.5]
    body = server.asked[1]
    assert body["model"] == "judge-7b"
    assert body["temperature"] == 0
    text, picture = body["messages"][0]["content"]
    assert text["text"].endswith("Prompt: a {cat}")
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    assert server.headers[1]["Authorization"] == "Bearer secret"


def test_busy_server_is_asked_again_as_it_wishes(
    server: Server, hasty: list[float]
) -> None:
    """429 with Retry-After, then 503, then it answers."""

    def reply(n: int, body: dict[str, Any]) -> Reply:
        if n == 2:
            return 429, {}, {"Retry-After": "7"}
        return (503, {}, {}) if n == 3 else (200, {"scores": [1.0]}, {})

    server.reply = reply
    loaded = SCORER.load(options={"url": server.url})
    assert loaded.score(PICTURES[:1], ["x"]) == [1.0]
    assert hasty == [7.0, 2.0]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((401, b"no key", {}), "refused with HTTP 401: no key"),
        ((503, b"busy", {}), "refused with HTTP 503: busy"),
        ((200, b"<html>", {}), "answered no JSON: <html>"),
        ((200, {"scores": [1.0, 2.0]}, {}), r"with 1 numbers; it answered"),
        ((200, {"scores": ["good"]}, {}), r"with 1 numbers; it answered"),
        ((200, {"result": 1}, {}), r"should answer \{\"scores\""),
    ],
    ids=["refused", "always busy", "no json", "too many", "no number", "other"],
)
def test_wrong_answer_is_told_when_the_judge_is_loaded(
    reply: Reply, message: str, server: Server
) -> None:
    """Before the first trial."""
    server.reply = lambda n, body: reply
    with pytest.raises(ScorerError, match=message):
        SCORER.load(options={"url": server.url, "retries": "1"})


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"choices": [{"message": {"content": "lovely"}}]}, "without a number: lovely"),
        ({"error": "x"}, "does not answer as a chat server"),
    ],
    ids=["words", "no chat"],
)
def test_chat_without_a_number_is_told(
    answer: object, message: str, server: Server
) -> None:
    """With what it said."""
    server.reply = lambda n, body: (200, answer, {})
    with pytest.raises(ScorerError, match=message):
        SCORER.load(options={"url": server.url, "form": "openai"})


def test_server_that_is_not_there_is_told(hasty: list[float]) -> None:
    """After the retries."""
    options = {"url": "http://127.0.0.1:9/score", "retries": "2"}
    with pytest.raises(ScorerError, match=r"does not answer .*; start the server"):
        SCORER.load(options=options)
    assert hasty == [1.0, 2.0]


def test_slow_server_is_given_up(server: Server) -> None:
    """After timeout_s."""
    gate = threading.Event()

    def reply(n: int, body: dict[str, Any]) -> Reply:
        gate.wait(5)
        return 200, {"scores": [1.0]}, {}

    server.reply = reply
    options = {"url": server.url, "retries": "0", "timeout_s": "0.2"}
    with pytest.raises(ScorerError, match=r"does not answer .*timed out"):
        SCORER.load(options=options)
    gate.set()


def test_waiting_ends_when_the_study_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A busy server does not hold the stop button."""
    monkeypatch.undo()

    class Stopped:
        def start(self, label: str, total: int, unit: str = "B") -> None:
            pass

        def advance(self, amount: int) -> None:
            pass

        def check(self) -> None:
            raise Cancelled("stop")

    options = {"url": "http://127.0.0.1:9/score"}
    with pytest.raises(Cancelled):
        SCORER.load(options=options, progress=Stopped())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "The option url is ''"),
        ({"url": "ftp://x"}, "The option url is 'ftp://x'"),
        ({"url": "http://x", "form": "grpc"}, "use json or openai"),
        ({"url": "http://x", "key_variable": "NOT_SET_HERE"}, "NOT_SET_HERE, which sh"),
        ({"url": "http://x", "timeout_s": "soon"}, "timeout_s is 'soon'"),
        ({"url": "http://x", "retries": "-1"}, "retries is '-1'"),
        ({"url": "http://x", "retry": "1"}, "Unknown option 'retry'; it has: url, fo"),
    ],
    ids=["none", "scheme", "form", "key", "timeout", "retries", "unknown"],
)
def test_wrong_option_is_the_reason(options: dict[str, str], message: str) -> None:
    """Nothing is sent."""
    assert message in (SCORER.unavailable_reason(options=options) or "")
