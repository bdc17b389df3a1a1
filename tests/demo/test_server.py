"""The gate before Gradio: what passes, and what is refused politely."""

import asyncio

import pytest

from arith_jax.demo import server
from arith_jax.demo.limits import MAX_REQUEST


async def inner(scope, receive, send):
    """An application that says how long the body is."""
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % len(message["body"])})


def request(gate, method, path, chunks=(b"",)):
    """Status, headers and text of an answer."""
    sent = []
    messages = [
        {"type": "http.request", "body": chunk, "more_body": i + 1 < len(chunks)}
        for i, chunk in enumerate(chunks)
    ]

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path}
    asyncio.run(gate(scope, receive, send))
    start, body = sent
    return start["status"], dict(start["headers"]), body["body"].decode()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("HEAD", "/"),
        ("GET", "/config"),
        ("GET", "/assets/index-BQ3f.js"),
        ("GET", "/static/js/iframeResizer.contentWindow.min.js"),
        ("GET", "/gradio_api/heartbeat/abc123"),
        ("GET", "/gradio_api/queue/data"),
        ("POST", "/gradio_api/queue/join"),
    ],
)
def test_what_the_page_needs_passes(method, path):
    status, headers, _ = request(server.Gate(inner), method, path)
    assert status == 200
    assert b"default-src 'self'" in headers[b"content-security-policy"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/gradio_api/upload"),
        ("GET", "/gradio_api/file=/etc/passwd"),
        ("GET", "/file=/etc/passwd"),
        ("GET", "/static/../../../../etc/passwd"),
        ("GET", "/assets/..%2f..%2fetc/passwd"),
        ("GET", "/gradio_api/proxy=http://example.org/"),
        ("GET", "/gradio_api/info"),
        ("GET", "/gradio_api/openapi.json"),
        ("POST", "/gradio_api/run/predict"),
        ("POST", "/gradio_api/call/predict"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/vibe-edit"),
        ("GET", "/gradio_api/mcp"),
        ("GET", "/monitoring"),
        ("DELETE", "/"),
        ("GET", "/config\n"),
        ("POST", "/"),
    ],
)
def test_everything_else_is_refused(method, path):
    status, _, text = request(server.Gate(inner), method, path)
    assert (status, text) == (404, "There is no such thing on this page.")


def test_large_requests_are_refused_while_they_arrive():
    gate = server.Gate(inner)
    path = "/gradio_api/queue/join"
    half = b"9" * (MAX_REQUEST // 2)
    assert request(gate, "POST", path, [half, half])[2] == str(MAX_REQUEST)
    # The last chunk is never asked for.
    status, _, text = request(gate, "POST", path, [half, half, b"9", None])
    assert (status, text) == (413, "This page takes requests of at most 524288 bytes.")
    assert gate.num_open == 0


def test_a_flood_of_requests_is_refused():
    gate = server.Gate(inner)
    gate.num_open = server.MAX_OPEN
    status, _, text = request(gate, "GET", "/")
    assert (status, text) == (
        503,
        "The page is busy. Please try again in a moment.",
    )


def test_websockets_are_closed():
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(server.Gate(inner)({"type": "websocket", "path": "/"}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_on_this_machine_it_answers_to_this_machine_s_names(host):
    assert "*" not in server.trusted_names(host)
    assert host in server.trusted_names(host)


def test_for_a_whole_network_it_answers_to_any_name():
    assert server.trusted_names("0.0.0.0") == ["*"]
