"""How the page is served: to this machine alone, and nothing but the page."""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from arith_jax.demo.limits import MAX_REQUEST

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

# What a browser needs of Gradio. It has uploads, files, proxies and tools for
# developers as well, which this page has no use for.
GET = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt"
    r"|/(assets|static|svelte)/[\w./@-]+"
    r"|/gradio_api/(startup-events|queue/data|theme\.css|heartbeat/\w+)",
    re.ASCII,
)
POST = re.compile(r"/gradio_api/(queue/join|cancel|reset)/?", re.ASCII)
# Open requests; every open page holds two.
MAX_OPEN = 128
LOOPBACK = ["127.0.0.1", "localhost", "[::1]", "::1"]
HEADERS = {
    # Nothing is fetched from anywhere else, whatever is put into the page.
    b"content-security-policy": (
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
        b"form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
}


class Gate:
    """Lets through what the page needs, if it is small and there are not too many.

    Attributes:
        app: What is behind it.
        num_open: Requests that are being answered.
    """

    def __init__(self, app: Application):
        self.app = app
        self.num_open = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers one request, or passes it on; see ASGI."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            # A websocket that is closed before it was accepted.
            await send({"type": "websocket.close", "code": 1008})
            return
        if not is_allowed(scope["method"], scope["path"]):
            await refuse(send, 404, "There is no such thing on this page.")
            return
        if self.num_open >= MAX_OPEN:
            await refuse(send, 503, "The page is busy. Please try again in a moment.")
            return
        self.num_open += 1
        try:
            await self.answer(scope, receive, send)
        finally:
            self.num_open -= 1

    async def answer(self, scope: Message, receive: Receive, send: Send) -> None:
        """Passes a request on, whose body is read first."""
        body = b""
        while scope["method"] == "POST":
            message = await receive()
            if message["type"] != "http.request":
                return  # The browser has gone.
            body += message.get("body", b"")
            if len(body) > MAX_REQUEST:
                text = f"This page takes requests of at most {MAX_REQUEST} bytes."
                await refuse(send, 413, text)
                return
            if not message.get("more_body", False):
                break
        pending = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *HEADERS.items()]
            await send(message)

        await self.app(scope, replay, send_with_headers)


def is_allowed(method: str, path: str) -> bool:
    """Whether a request is one that the page makes."""
    if ".." in path:
        return False
    pattern = {"GET": GET, "HEAD": GET, "POST": POST}.get(method)
    return pattern is not None and pattern.fullmatch(path) is not None


def trusted_names(host: str) -> list[str]:
    """Names that a browser may call the page by, as Starlette writes them.

    Another site can let a name of its own point to this machine (DNS rebinding): where
    the page is for this machine alone, it answers to this machine's names only.

    Args:
        host: Where it is served.
    """
    return LOOPBACK if host in LOOPBACK else ["*"]


async def refuse(send: Send, status: int, text: str) -> None:
    """Answers with one sentence."""
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *HEADERS.items()]
    start = {"type": "http.response.start", "status": status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": text.encode()})
