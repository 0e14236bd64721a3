"""Upgrades that are not answered with 101, or not at all."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from tests.venue.support import HELLO, KEY, Behaviour, Peer, RawVenue, Recorder, running, settings, stay, text
from worker.venue.upgrade import refusal, status_of

NOW = datetime(2026, 3, 9, 14, 7, 5, tzinfo=UTC)


def answering(answer: bytes, *, then_close: bool = True) -> Behaviour:
    async def behave(peer: Peer) -> None:
        await peer.read_request()
        peer.write(answer)
        if then_close:
            peer.writer.write_eof()
        await peer.reader.read()

    return behave


def http(status: str, *headers: str, body: str = "") -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}"]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (http("401 Unauthorized"), "upgrade refused with HTTP 401 Unauthorized (check key, secret, URL and clock)"),
        (http("403 Forbidden", body="ip not allowed"), "list of addresses): ip not allowed"),
        (http("403 No", body=f"bad key {KEY}"), "bad key ***"),
        (http("404 Not Found"), "upgrade refused with HTTP 404 Not Found"),
        (http("429 Slow", "Retry-After: 1"), "upgrade refused with HTTP 429 Too Many Requests (Retry-After 1 s)"),
        (http("503 Busy", "retry-after:soon"), "upgrade refused with HTTP 503 Service Unavailable"),
        (http("500 Oops", body="<h1>\r\n\ttrace \x1b[31m" + "y" * 5000), "Error: <h1> trace \\x1b[31myyy"),
        (http("302 Found", "Location: ws://127.0.0.1:1/elsewhere"), "HTTP 302 Found (redirects are not followed)"),
        (http("299 Odd"), "upgrade refused with HTTP 299"),
        (http("200 OK", body="hello"), "upgrade refused with HTTP 200 OK: hello"),
        (
            b"HTTP/1.1 401 Unauthorized\r\n\r\nuntil the end",
            "HTTP 401 Unauthorized (check key, secret, URL and clock): unt",
        ),
        (
            b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "500 Internal Server Error: abc",
        ),
        (b"HTTP/1.1 500 X\r\nContent-Length: nonsense\r\n\r\n", "HTTP 500 Internal Server Error"),
        (b"HTTP/1.1 500 X\r\nContent-Length: 99999999999\r\n\r\n", "HTTP 500 Internal Server Error"),
        (b"HTTP/1.1 401 X\r\nContent-Length: 100\r\n\r\ncut", "upgrade refused with HTTP 401"),
        (b"HTTP/1.1 101 Y\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "missing Sec-WebSocket-Accept"),
        (
            b"HTTP/1.1 101 Y\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: no\r\n\r\n",
            "invalid Sec-WebSocket-Accept",
        ),
        (b"HTTP/1.1 101 Y\r\nConnection: close\r\n\r\n", "invalid Connection header"),
        (b"HTTP/1.0 101 Y\r\n\r\n", "upgrade: "),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "upgrade: the answer is not HTTP"),
        (b"\x00\xff\r\n", "upgrade: the answer is not HTTP"),
        (b"HTTP/1.1 101 Y\r\n" + b"A: b\r\n" * 1000, "upgrade: the answer is not HTTP"),
        (b"x" * 100_000, "upgrade: the answer is not HTTP"),
        (b"HTTP/1.1 101 Switching", "upgrade: the venue closed the connection"),
        (b"", "upgrade: the venue closed the connection"),
    ],
)
async def test_an_answer_other_than_101_fails_the_attempt_with_its_status_and_a_bounded_body(
    answer: bytes, reason: str
) -> None:
    port = Recorder()
    async with RawVenue(answering(answer), stay).listening() as venue, running(settings(venue.port), port):
        await port.until(lambda: port.of("failed"))
        assert reason in port.reasons[0]
        assert [slot for slot, _ in port.of("failed")] == [0]
        assert not port.of("opened")
        assert not port.of("lost")
        await port.until(lambda: port.frames)
    assert [what[0] for what in port.told][:2] == ["failed", "batch"]


async def test_a_status_counts_though_its_body_never_ends() -> None:
    answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\nsome of it"
    port = Recorder()
    venue = RawVenue(answering(answer, then_close=False), stay)
    async with venue.listening(), running(settings(venue.port, connect_timeout=30), port):
        await port.until(lambda: port.of("failed"), within=2)
    assert port.reasons[0].startswith("upgrade refused with HTTP 403 Forbidden")


async def test_a_redirect_is_not_followed() -> None:
    port = Recorder()
    elsewhere = RawVenue(stay)
    async with elsewhere.listening():
        moved = answering(http("301 Moved Permanently", f"Location: ws://127.0.0.1:{elsewhere.port}/ws/v1"))
        async with RawVenue(moved).listening() as venue, running(settings(venue.port, reconnect_max=0.02), port):
            await port.until(lambda: len(port.of("failed")) >= 2)
    assert elsewhere.peers == []
    assert str(elsewhere.port) not in port.reasons[0]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"])
async def test_no_answer_fails_the_attempt_at_the_limit(answer: bytes) -> None:
    port = Recorder()
    venue = RawVenue(answering(answer, then_close=False), stay)
    async with venue.listening(), running(settings(venue.port, connect_timeout=0.3), port):
        start = asyncio.get_running_loop().time()
        await port.until(lambda: port.of("failed"))
        assert 0.29 < asyncio.get_running_loop().time() - start < 3.0
        assert port.reasons[0] == f"upgrade: no answer from 127.0.0.1:{venue.port} in 0.3 s"
        await port.until(lambda: port.frames)


async def test_an_answer_cut_at_every_byte_is_a_failed_attempt_and_never_a_session() -> None:
    length = len(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n") + len(
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )

    def cut(at: int) -> Behaviour:
        async def behave(peer: Peer) -> None:
            await peer.read_request()
            answer = peer.acceptance()
            assert len(answer) == length
            peer.write(answer[:at])
            peer.writer.write_eof()
            await peer.reader.read()

        return behave

    port = Recorder()
    venue = RawVenue(*(cut(at) for at in range(length)), stay)
    async with (
        venue.listening(),
        running(settings(venue.port, reconnect_min=0.0001, reconnect_max=0.0001), port),
    ):
        await port.until(lambda: port.frames, within=20)
    assert len(port.of("failed")) == length
    assert len(port.of("opened")) == 1


async def test_frames_that_come_in_the_same_read_as_the_answer_are_told_after_the_opening() -> None:
    async def behave(peer: Peer) -> None:
        await peer.read_request()
        peer.write(peer.acceptance() + text(HELLO) + text(HELLO)[:5])
        await asyncio.sleep(0.02)
        peer.write(text(HELLO)[5:])
        await peer.reader.read()

    port = Recorder()
    async with RawVenue(behave).listening() as venue, running(settings(venue.port), port):
        await port.until(lambda: len(port.frames) == 2)
    assert [what[0] for what in port.told[:5]] == ["opened", "frame", "batch", "frame", "batch"]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (b"Retry-After: 120", 120.0),
        (b"RETRY-AFTER:7 ", 7.0),
        (b"Retry-After: 99999999999999", 999999999.0),
        (b"Retry-After: Mon, 09 Mar 2026 14:08:05 GMT", 60.0),
        (b"Retry-After: Mon, 09 Mar 2026 14:08:05 -0000", 60.0),
        (b"Retry-After: Mon, 09 Mar 2026 13:00:00 GMT", 0.0),
        (b"Retry-After: -5", None),
        (b"Retry-After: 1.5", None),
        (b"Retry-After: \xb2", None),
        (b"Retry-After:", None),
        (b"X-Retry-After: 5", None),
    ],
)
def test_retry_after_is_a_number_of_seconds_or_a_date(header: bytes, seconds: float | None) -> None:
    error = refusal(b"HTTP/1.1 503 Busy\r\nServer: x\r\n" + header + b"\r\n\r\n", b"", (), NOW)
    assert error.status == 503
    assert error.retry_after_s == seconds


@pytest.mark.parametrize(
    ("head", "status"),
    [(b"HTTP/1.1 404 Not Found\r\n", 404), (b"HTTP/1.1 404\r\n", 404), (b"HTTP/1.1 4x4\r\n", 0), (b"", 0)],
)
def test_the_status_is_read_from_the_first_line(head: bytes, status: int) -> None:
    assert status_of(head) == status
