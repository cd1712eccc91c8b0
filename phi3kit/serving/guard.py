"""What stands before every route: the keys, and limits on the bodies of requests."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from phi3kit.chat import openai
from phi3kit.errors import InvalidRequest

MAX_BODY = 4_000_000  # bytes: some 30 times the text that fills Phi-3's context window
BODY_SECONDS = 20  # for a whole body to arrive
_OPEN = {"/health", "/ready", "/metrics", "/ping", "/version"}  # they tell nothing of a request

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


def read_keys(path: Path) -> list[str]:
    """Return the keys in a file, one in a line; empty lines and lines that begin with # do not count.

    Raises:
        InvalidRequest: there is no such file, or no key in it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InvalidRequest("api-key-file", str(path), f"a file that can be read ({error.strerror})") from None
    if keys := [line.strip() for line in lines if line.strip() and not line.startswith("#")]:
        return keys
    raise InvalidRequest("api-key-file", str(path), "a file with one key in a line")


class Guard:
    """ASGI middleware that lets a request in when its key is known and its body is complete and small enough.

    Args:
        app: what lies behind.
        keys: any of them opens; without one, no key is asked for.
    """

    def __init__(self, app: Any, keys: Iterable[str] = ()) -> None:
        self._app, self._keys = app, [_digest(key) for key in keys]

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Handle one connection, as ASGI prescribes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        scope.setdefault("state", {})["owner"] = owner = self._owner(headers.get(b"authorization", b""))
        if owner is None and scope["path"] not in _OPEN and scope["method"] != "OPTIONS":
            await _refuse(send, 401, "This server wants a key: Authorization: Bearer KEY.", "invalid_api_key")
            return
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _whole(headers, receive)
        except TimeoutError:
            await _refuse(send, 408, f"The body was not complete after {BODY_SECONDS} s.", "timeout")
        except _TooLarge:
            await _refuse(send, 413, f"The body has more than {MAX_BODY} bytes.", "request_too_large")
        else:
            if body is not None:
                await self._app(scope, _replayed(body, receive), send)

    def _owner(self, authorization: bytes) -> str | None:
        """Return a name for the key that was sent; empty where none is asked for, None for an unknown one."""
        if not self._keys:
            return ""
        given = _digest(authorization.decode("latin-1").removeprefix("Bearer "))
        known = [hmac.compare_digest(given, key) for key in self._keys]  # all of them, in constant time
        return given if any(known) else None


class _TooLarge(Exception):
    pass


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


async def _whole(headers: dict[bytes, bytes], receive: Receive) -> bytes | None:
    """Return the whole body; None when the client went away before."""
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared[:20]) > MAX_BODY:
        raise _TooLarge
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise _TooLarge
        if not message.get("more_body"):
            return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body once, then what the connection goes on to tell."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> dict[str, Any]:
        return messages.pop() if messages else await receive()

    return replay


async def _refuse(send: Send, status: int, message: str, code: str) -> None:
    body = json.dumps(openai.error(message, type="invalid_request_error", code=code)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
