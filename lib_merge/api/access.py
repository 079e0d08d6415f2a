"""Who may use the routes: the host's logins, and no web page from elsewhere."""

from __future__ import annotations

import base64
import binascii
import inspect
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lib_merge.api._call import Refusal

if TYPE_CHECKING:
    from starlette.requests import Request

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_COOKIE = "access-token"
"""What the names of Gradio's login cookies begin with, in every version."""

_CHALLENGE = {"WWW-Authenticate": 'Basic realm="MergeLab", charset="UTF-8"'}


@dataclass(frozen=True)
class Access:
    """Logins and origins, as the host was told them.

    Attributes:
        passwords: By user; those of Gradio's own login need not be among them.
        is_locked: Whether a login is asked for even if there is none that fits.
        origins: Other origins that may use the routes from a browser.
        origin_pattern: A pattern for such origins, or "".
    """

    passwords: Mapping[str, str] = field(default_factory=dict, repr=False)
    is_locked: bool = False
    origins: tuple[str, ...] = ()
    origin_pattern: str = ""


def read_logins(text: str) -> dict[str, str]:
    """Passwords by user, of a text like that of --api-auth."""
    pairs = (part.partition(":") for part in text.split(",") if part.strip())
    return {user.strip(): password.strip() for user, _, password in pairs}


class Guard:
    """Asked before every request.

    Args:
        app: The FastAPI app; Gradio keeps its logins there.
        access: What the host was told.
    """

    def __init__(self, app: Any, access: Access) -> None:
        self._app = app
        self._access = access

    async def check(self, request: Request, *, is_write: bool) -> None:
        """Let a request pass or refuse it.

        Raises:
            Refusal: 403 for a page of another origin, 401 for a missing login.
        """
        self._check_origin(request, is_write=is_write)
        if self._needs_login() and not await self._is_known(request):
            raise Refusal(
                401,
                "This WebUI asks for a login: send one of --api-auth or --gradio-auth "
                "(curl -u user:password), or log in on the page.",
                headers=_CHALLENGE,
            )

    # Logins

    def _needs_login(self) -> bool:
        is_told = self._access.is_locked or bool(self._access.passwords)
        return is_told or self._gradio_auth() is not None or self._has_dependency()

    def _gradio_auth(self) -> Any:
        """Gradio's logins: a mapping, a function, or None."""
        return getattr(self._app, "auth", None)

    def _has_dependency(self) -> bool:
        return getattr(self._app, "auth_dependency", None) is not None

    async def _is_known(self, request: Request) -> bool:
        if self._has_dependency():
            user = await _awaited(self._app.auth_dependency(request))
            if user is not None:
                return True
        elif self._has_cookie(request):
            return True
        given = _basic(request.headers.get("authorization", ""))
        return given is not None and await self._fits(*given)

    def _has_cookie(self, request: Request) -> bool:
        """Whether the page's own login came along."""
        if self._gradio_auth() is None:
            return False
        tokens: Mapping[str, str] = getattr(self._app, "tokens", None) or {}
        return any(
            name.startswith(_COOKIE) and tokens.get(value) is not None
            for name, value in request.cookies.items()
        )

    async def _fits(self, user: str, password: str) -> bool:
        if _is_same(password, self._access.passwords.get(user)):
            return True
        known = self._gradio_auth()
        if known is None:
            return False
        if callable(known):
            return bool(await _awaited(known(user, password)))
        return _is_same(password, known.get(user))

    # Origins

    def _check_origin(self, request: Request, *, is_write: bool) -> None:
        origin = request.headers.get("origin", "")
        site = request.headers.get("sec-fetch-site", "")
        if origin and self._is_allowed(origin):
            return
        if site in ("same-origin", "none"):
            # Browsers say this of themselves; no page can make them say it.
            return
        is_foreign = site != "" or (origin != "" and not _is_own(origin, request))
        if is_foreign or (is_write and origin and self._is_rebound(request)):
            raise Refusal(
                403,
                "This request comes from a web page of another origin "
                f"({origin or site}), which may not use MergeLab; start the WebUI with "
                "--cors-allow-origins to allow it.",
            )

    def _is_allowed(self, origin: str) -> bool:
        if origin in self._access.origins:
            return True
        pattern = self._access.origin_pattern
        return bool(pattern) and re.fullmatch(pattern, origin) is not None

    def _is_rebound(self, request: Request) -> bool:
        """Whether a page reached this machine under a name of its own.

        A name that a stranger's server answers for can be made to mean 127.0.0.1; the
        page then has the same origin as we have, and only the name gives it away.
        """
        server = (request.scope.get("server") or ("", 0))[0]
        name = urlsplit(f"//{request.headers.get('host', '')}").hostname
        is_here = server in _LOOPBACK and name not in _LOOPBACK
        return is_here and not self._needs_login()


def _is_own(origin: str, request: Request) -> bool:
    parts = urlsplit(origin)
    return parts.netloc != "" and parts.netloc == request.headers.get("host", "")


def _basic(header: str) -> tuple[str, str] | None:
    scheme, _, coded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(coded.strip(), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None
    user, colon, password = text.partition(":")
    return (user, password) if colon else None


def _is_same(given: str, known: Any) -> bool:
    if not isinstance(known, str):
        return False
    return secrets.compare_digest(given.encode(), known.encode())


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def origins_of(texts: Sequence[str]) -> tuple[str, ...]:
    """Origins of comma-separated texts; "*" is none, since it would allow any page."""
    found = [part.strip().rstrip("/") for text in texts for part in text.split(",")]
    return tuple(part for part in found if part and part != "*")
