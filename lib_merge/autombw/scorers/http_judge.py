"""A judge on another server: pictures and prompts by HTTP, scores back.

Form "json", one request a batch:

    POST url  {"protocol": "mergelab-judge", "version": 1,
               "items": [{"prompt": "a cat", "image": "<PNG, base64>"}, ...]}
    200       {"scores": [0.73, ...]}          one number an item, higher is better

Form "openai", one request a picture, for any server with OpenAI's chat interface:

    POST url  {"model": ..., "temperature": 0, "messages": [{"role": "user", "content":
               [{"type": "text", "text": instruction}, {"type": "image_url", ...}]}]}
    200       the last number in the answer's text is the score
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import logging
import math
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_merge.autombw.scorers._image_reward_files import check_counts
from lib_merge.core.ports import LoadedScorer, Progress, ScorerCard, ScorerOption
from lib_merge.errors import ScorerError

if TYPE_CHECKING:
    from PIL.Image import Image

_log = logging.getLogger(__name__)

JSON, OPENAI = "json", "openai"

INSTRUCTION = (
    "Rate this picture for the prompt below: how well it shows the prompt, and how "
    "good it looks. Answer with one number from 0 (worst) to 10 (best), nothing else.\n"
    "Prompt: {prompt}"
)

_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_BUSY = (408, 429, 500, 502, 503, 504)
_MAX_WAIT_S = 60.0

_OPTIONS = (
    ScorerOption("url", "", "where pictures are sent", is_required=True),
    ScorerOption("form", JSON, "json (MergeLab's own) or openai (a chat server)"),
    ScorerOption("model", "", "the model's name on a chat server"),
    ScorerOption(
        "key_variable", "", "environment variable that holds the server's key"
    ),
    ScorerOption("instruction", INSTRUCTION, "what a chat server is asked; {prompt}"),
    ScorerOption("timeout_s", "120", "seconds to wait for an answer"),
    ScorerOption("retries", "3", "times to try again when the server is busy"),
)


@dataclass(frozen=True)
class HttpJudge:
    """Lets a server judge: one for a larger model, or of your own making.

    Range: whatever the server answers; higher is better; a chat server is asked for 0
    to 10. Pictures and prompts leave this machine for the address that you give.
    """

    id: str = "http_judge"
    label: str = "A judge on another server (HTTP)"
    range: tuple[float, float] = (0.0, 10.0)
    card: ScorerCard = field(
        default=ScorerCard(
            training="depends on the server",
            licence="of the server's model",
            weights="none here; the server's address is the option `url`",
            options=_OPTIONS,
        ),
        repr=False,
    )

    def unavailable_reason(
        self,
        *,
        weights: Path | None = None,
        options: Mapping[str, str] | None = None,
    ) -> str | None:
        """What is missing in the options; the server is asked when it is loaded."""
        try:
            _Server.read(options or {})
        except ScorerError as fault:
            return str(fault)
        return None

    def load(
        self,
        *,
        device: str = "cpu",
        weights: Path | None = None,
        progress: Progress | None = None,
        options: Mapping[str, str] | None = None,
    ) -> LoadedScorer:
        """Ask the server to judge one grey picture, so that faults are told early.

        Raises:
            ScorerError: An option is wrong, or the server does not answer as it should.
        """
        from PIL import Image

        judge = _Remote(_Server.read(options or {}), progress)
        judge.score([Image.new("RGB", (64, 64), (128, 128, 128))], ["a grey square"])
        return judge


@dataclass(frozen=True)
class _Server:
    """Where and how to ask."""

    url: str
    form: str
    model: str
    key: str
    instruction: str
    timeout_s: float
    n_retries: int

    @classmethod
    def read(cls, options: Mapping[str, str]) -> _Server:
        """Check the options.

        Raises:
            ScorerError: One is wrong.
        """
        values = {one.name: options.get(one.name) or one.default for one in _OPTIONS}
        unknown = sorted(set(options) - set(values))
        if unknown:
            known = ", ".join(values)
            raise ScorerError(f"Unknown option '{unknown[0]}'; it has: {known}.")
        url, form = values["url"], values["form"]
        if not url.startswith(("http://", "https://")):
            raise ScorerError(
                f"The option url is '{url}'; give the server's address, for example "
                "http://127.0.0.1:8000/score."
            )
        if form not in (JSON, OPENAI):
            raise ScorerError(f"The option form is '{form}'; use json or openai.")
        variable = values["key_variable"]
        if variable and not os.environ.get(variable):
            raise ScorerError(
                f"The environment variable {variable}, which should hold the server's "
                "key, is not set; set it and start again."
            )
        return cls(
            url=url,
            form=form,
            model=values["model"],
            key=os.environ.get(variable, "") if variable else "",
            instruction=values["instruction"],
            timeout_s=_number("timeout_s", values["timeout_s"], low=0.1),
            n_retries=int(_number("retries", values["retries"], low=0)),
        )


def _number(name: str, text: str, low: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value < math.inf:
        raise ScorerError(f"The option {name} is '{text}'; give a number from {low:g}.")
    return value


class _Remote:
    """Asks a server; satisfies the LoadedScorer port."""

    def __init__(self, server: _Server, progress: Progress | None) -> None:
        self._server = server
        self._progress = progress

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """What the server answers.

        Raises:
            ScorerError: It cannot be reached, refuses, or answers something else.
            Cancelled: The study was stopped while it was busy.
        """
        check_counts(images, prompts)
        pictures = [_base64(image) for image in images]
        pairs = list(zip(prompts, pictures, strict=True))
        if self._server.form == OPENAI:
            return [self._chat(prompt, picture) for prompt, picture in pairs]
        items = [{"prompt": prompt, "image": picture} for prompt, picture in pairs]
        answer = self._post(
            {"protocol": "mergelab-judge", "version": 1, "items": items}
        )
        return self._scores(answer, len(items))

    def _scores(self, answer: Any, n_items: int) -> list[float]:
        found = answer.get("scores") if isinstance(answer, dict) else None
        is_whole = isinstance(found, list) and len(found) == n_items
        if not is_whole or not all(_is_number(one) for one in found or ()):
            raise ScorerError(
                f'{self._server.url} should answer {{"scores": [...]}} with {n_items} '
                f"numbers; it answered {_short(json.dumps(answer))}."
            )
        return [float(one) for one in found or ()]

    def _chat(self, prompt: str, picture: str) -> float:
        text = self._server.instruction.replace("{prompt}", prompt)
        content = [
            {"type": "text", "text": text},
            {
                "type": "image_url",
                "image_url": {"url": f"data:image/png;base64,{picture}"},
            },
        ]
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
        }
        if self._server.model:
            body["model"] = self._server.model
        answer = self._post(body)
        try:
            words = str(answer["choices"][0]["message"]["content"])
        except (KeyError, IndexError, TypeError) as fault:
            raise ScorerError(
                f"{self._server.url} does not answer as a chat server: "
                f"{_short(json.dumps(answer))}."
            ) from fault
        numbers = _NUMBER.findall(words)
        if not numbers:
            raise ScorerError(
                f"{self._server.url} answered without a number: {_short(words)}; "
                "change the option `instruction`."
            )
        return float(numbers[-1])

    def _post(self, body: Mapping[str, Any]) -> Any:
        """Send, again while the server is busy or away; the answer's JSON."""
        data = json.dumps(body).encode()
        for attempt in range(self._server.n_retries + 1):
            is_last = attempt == self._server.n_retries
            try:
                return self._send(data)
            except urllib.error.HTTPError as fault:
                if is_last or fault.code not in _BUSY:
                    said = _short(fault.read(400).decode("utf-8", "replace"))
                    raise ScorerError(
                        f"{self._server.url} refused with HTTP {fault.code}: {said}."
                    ) from fault
                wait_s = _wait_asked(fault) or 2.0**attempt
                _log.warning("%s is busy (%d).", self._server.url, fault.code)
            except (OSError, http.client.HTTPException) as fault:
                if is_last:
                    reason = getattr(fault, "reason", None) or fault
                    raise ScorerError(
                        f"{self._server.url} does not answer ({reason}); start the "
                        "server, or raise the option timeout_s."
                    ) from fault
                wait_s = 2.0**attempt
                _log.warning("%s does not answer: %s", self._server.url, fault)
            self._wait(min(wait_s, _MAX_WAIT_S))
        raise AssertionError("The last attempt returns or raises.")

    def _send(self, data: bytes) -> Any:
        request = urllib.request.Request(
            self._server.url, data=data, headers={"Content-Type": "application/json"}
        )
        if self._server.key:
            request.add_header("Authorization", f"Bearer {self._server.key}")
        with urllib.request.urlopen(request, timeout=self._server.timeout_s) as answer:
            text = answer.read()
        try:
            return json.loads(text)
        except ValueError as fault:
            said = _short(text.decode("utf-8", "replace"))
            raise ScorerError(
                f"{self._server.url} answered no JSON: {said}."
            ) from fault

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._progress is not None:
                self._progress.check()
            time.sleep(min(left, 0.2))

    def close(self) -> None:
        """Nothing is held here."""


def _base64(image: Image) -> str:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _wait_asked(fault: urllib.error.HTTPError) -> float:
    """Seconds that the server asks to be left alone; 0 where it does not say."""
    text = fault.headers.get("Retry-After", "") if fault.headers else ""
    return float(text) if text.isdigit() else 0.0


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}..."


SCORER = HttpJudge()
