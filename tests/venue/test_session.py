"""One session from its first byte to its last, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import sys
import termios
import time

import pytest
import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode

from tests.venue.support import (
    HELLO,
    KEY,
    SECRET,
    Peer,
    RawVenue,
    Recorder,
    close,
    running,
    served,
    settings,
    slices,
    stay,
    text,
)
from worker.venue.socket import Limits
from worker.wire.signature import api_sign


async def test_messages_go_both_ways_with_a_real_server() -> None:
    async def echo(connection: ServerConnection) -> None:
        await connection.send(HELLO, text=True)
        try:
            async for message in connection:
                await connection.send(message)
        except ConnectionClosed:
            pass

    port = Recorder()
    async with serve(echo, "127.0.0.1", 0) as server:
        where = next(iter(server.sockets)).getsockname()[1]
        async with running(settings(where, sessions=2), port) as pool:
            await port.until(lambda: len(port.frames) == 2)
            sent = [
                b'{"reqid":%d,"filler":"%s"}' % (size, b"x" * size) for size in (0, 125, 126, 65535, 65536, 300_000)
            ]
            for data in sent:
                pool.send(2, data)
            pool.flush()
            await port.until(lambda: len(port.frames) == 2 + len(sent))
    assert port.of("opened") == [(1, 0), (2, 1)]
    assert port.frames == [HELLO, HELLO, *sent]
    assert sorted(port.of("lost")) == [(1, "closed by the worker"), (2, "closed by the worker")]


async def test_the_upgrade_carries_a_signature_over_its_own_timestamp_and_asks_for_no_compression() -> None:
    port = Recorder()
    async with RawVenue(stay).listening() as venue, running(settings(venue.port), port):
        await port.until(lambda: port.frames)
    peer = venue.peers[0]
    timestamp = peer.headers["apitimestamp"]
    assert peer.path == "/ws/v1"
    assert peer.headers["host"] == f"127.0.0.1:{venue.port}"
    assert peer.headers["apikey"] == KEY
    assert peer.headers["apisign"] == api_sign(SECRET, timestamp, "127.0.0.1", "/ws/v1")
    assert "sec-websocket-extensions" not in peer.headers


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_any_slicing_of_answer_and_frames_gives_the_same_messages(size: int) -> None:
    stream = (
        text(HELLO)
        + text(b"a" * 126)
        + text(b"b", fin=False)
        + served(Opcode.PING, b"are you there")
        + served(Opcode.CONT, b"c", fin=False)
        + served(Opcode.CONT, b"")
        + text(b"")
        + text(b"\xff\xfe not UTF-8")
        + served(Opcode.BINARY, b"bytes")
        + served(Opcode.PONG, b"unasked")
        + text(b"last")
    )
    pong: list[tuple[int, bytes]] = []

    async def behave(peer: Peer) -> None:
        await peer.read_request()
        for part in slices(peer.acceptance() + stream, size):
            peer.write(part)
            await asyncio.sleep(0)
        pong.append(await peer.read_frame())
        await peer.reader.read()

    port = Recorder()
    async with RawVenue(behave).listening() as venue, running(settings(venue.port), port):
        await port.until(lambda: b"last" in port.frames)
        await port.until(lambda: True)
        while not pong:
            await asyncio.sleep(0.001)
    assert port.frames == [HELLO, b"a" * 126, b"bc", b"", b"\xff\xfe not UTF-8", b"bytes", b"last"]
    assert pong == [(Opcode.PONG, b"are you there")]
    assert len(port.of("lost")) == 1


async def test_what_one_read_brought_is_one_batch() -> None:
    async def behave(peer: Peer) -> None:
        await peer.read_request()
        peer.write(peer.acceptance() + text(HELLO) + text(b"1") + text(b"2"))
        await peer.reader.read()

    port = Recorder()
    async with RawVenue(behave).listening() as venue, running(settings(venue.port), port):
        await port.until(lambda: port.of("batch"))
        assert [what[0] for what in port.told] == ["opened", "frame", "frame", "frame", "batch"]


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (close(1000), "the venue closed the session with code 1000"),
        (close(1001, "going away"), "the venue closed the session with code 1001: going away"),
        (close(1008, "policy"), "the venue closed the session with code 1008: policy"),
        (close(1013, "later"), "the venue closed the session with code 1013: later"),
        (
            close(4001, "two\nlines \u2026\x1b[31m"),
            "the venue closed the session with code 4001: two lines \\u2026\\x1b[31m",
        ),
        (close(None), "the venue closed the session without a code"),
        (close(1005), "the venue broke the WebSocket protocol"),
        (served(Opcode.CLOSE, b"\x03"), "the venue broke the WebSocket protocol"),
        (close(1000)[:-1] + b"\xff", "the venue"),
        (
            served(Opcode.CLOSE, b"\x03\xe8\xff\xff"),
            "the venue broke the WebSocket protocol: close reason is not UTF-8",
        ),
        (b"", "the venue closed the connection without a close frame"),
        (text(b"abcdef")[:-1], "the venue closed the connection without a close frame in the middle of a message"),
        (text(b"ab", fin=False), "the venue closed the connection without a close frame in the middle of a message"),
        (text(b"ab", fin=False) + text(b"cd"), "the venue broke the WebSocket protocol: expected a continuation frame"),
        (served(Opcode.CONT, b"ab"), "the venue broke the WebSocket protocol: unexpected continuation frame"),
        (b"\x81\x81abcd\x00", "the venue broke the WebSocket protocol: incorrect masking"),
        (b"\xc1\x01a", "the venue broke the WebSocket protocol: reserved bits must be 0"),
        (b"\x83\x01a", "the venue broke the WebSocket protocol: invalid opcode"),
        (b"\x89\x7e\x00\x80" + b"p" * 128, "the venue broke the WebSocket protocol: control frame too long"),
        (f"here is {KEY}".encode().join([b"\x88" + bytes([2 + 8 + len(KEY)]) + b"\x03\xe8", b""]), "here is ***"),
    ],
)
async def test_every_ending_is_told_once_with_its_reason(ending: bytes, reason: str) -> None:
    async def behave(peer: Peer) -> None:
        await peer.accept()
        peer.write(text(HELLO) + ending)
        if b"\x88" not in ending[:1] and "broke" not in reason:
            peer.writer.write_eof()
        await peer.reader.read()

    port = Recorder()
    async with RawVenue(behave, stay).listening() as venue, running(settings(venue.port), port):
        await port.until(lambda: len(port.of("opened")) == 2)
        assert [session for session, _ in port.of("lost")] == [1]
        assert reason in port.reasons[0]
        assert port.of("frame")[0] == (1, HELLO)
    assert [session for session, _ in port.of("lost")] == [1, 2]


@pytest.mark.parametrize("code", [1000, 1001, 4001])
async def test_a_close_frame_is_answered_with_its_own_code(code: int) -> None:
    answer: list[tuple[int, bytes]] = []

    async def behave(peer: Peer) -> None:
        await peer.accept()
        peer.write(close(code, "bye"))
        answer.append(await peer.read_frame())

    port = Recorder()
    async with RawVenue(behave, stay).listening() as venue, running(settings(venue.port), port):
        await port.until(lambda: len(port.of("opened")) == 2)
    assert answer == [(Opcode.CLOSE, code.to_bytes(2, "big") + b"bye")]


async def test_a_connection_that_the_venue_leaves_open_after_its_close_frame_is_dropped_at_the_limit() -> None:
    ended = asyncio.Event()

    async def behave(peer: Peer) -> None:
        await peer.accept()
        peer.write(close(1001))
        await peer.read_frame()
        with contextlib.suppress(ConnectionError):
            await peer.reader.read()
        ended.set()

    port = Recorder()
    async with RawVenue(behave, stay).listening() as venue, running(settings(venue.port), port):
        await port.until(lambda: port.of("lost"))
        async with asyncio.timeout(5):
            await ended.wait()
        await port.until(lambda: port.of("frame"))
    assert port.of("lost")[0] == (1, "the venue closed the session with code 1001")


async def test_a_reset_connection_is_a_loss_with_the_systems_words() -> None:
    async def behave(peer: Peer) -> None:
        await peer.accept()
        await peer.reader.readexactly(1)
        peer.writer.transport.abort()  # with bytes unread: a reset

    port = Recorder()
    async with RawVenue(behave, stay).listening() as venue, running(settings(venue.port), port) as pool:
        await port.until(lambda: port.of("opened"))
        pool.send(1, b"x" * 100_000)
        await port.until(lambda: port.of("lost"))
    assert any(word in port.reasons[0] for word in ("connection reset by peer", "without a close frame", "broken pipe"))


@pytest.mark.parametrize("fragmented", [False, True])
async def test_a_message_up_to_the_limit_passes_and_a_longer_one_ends_the_session(fragmented: bool) -> None:
    limit = 100_000

    def message(size: int) -> bytes:
        if not fragmented:
            return text(b"m" * size)
        return text(b"m" * (size // 2), fin=False) + served(Opcode.CONT, b"m" * (size - size // 2))

    closing: list[tuple[int, bytes]] = []

    async def behave(peer: Peer) -> None:
        await peer.accept()
        peer.write(message(limit) + message(limit + 1))
        closing.append(await peer.read_frame())

    port = Recorder()
    limits = Limits(max_message=limit, close_timeout=0.1)
    async with RawVenue(behave, stay).listening() as venue, running(settings(venue.port), port, limits=limits):
        await port.until(lambda: port.of("lost"))
        await port.until(lambda: len(port.of("opened")) == 2)
    assert port.of("frame")[0] == (1, b"m" * limit)
    assert port.reasons[0].startswith("message too big: ")
    assert closing[0][0] == Opcode.CLOSE
    assert closing[0][1][:2] == (1009).to_bytes(2, "big")


async def test_a_frame_announced_as_huge_is_refused_by_its_header() -> None:
    async def behave(peer: Peer) -> None:
        await peer.accept()
        peer.write(b"\x81\x7f" + (1 << 40).to_bytes(8, "big") + b"x" * 10)
        await peer.reader.read()

    port = Recorder()
    async with RawVenue(behave, stay).listening() as venue, running(settings(venue.port), port):
        await port.until(lambda: port.of("lost"))
    assert port.reasons[0].startswith("message too big: ")
    assert b"x" * 10 not in port.frames


async def test_frames_of_one_turn_leave_together_and_in_order_even_without_flush() -> None:
    got: list[bytes] = []

    async def behave(peer: Peer) -> None:
        await peer.accept()
        while True:
            got.append((await peer.read_frame())[1])

    port = Recorder()
    async with RawVenue(behave).listening() as venue, running(settings(venue.port), port) as pool:
        await port.until(lambda: port.of("opened"))
        for number in range(30):
            pool.send(1, b"%d" % number)
        while len(got) < 30:
            await asyncio.sleep(0.001)
        assert got == [b"%d" % number for number in range(30)]


async def test_flush_hands_all_frames_to_the_transport_in_the_same_step() -> None:
    port = Recorder()
    async with RawVenue(stay).listening() as venue, running(settings(venue.port), port) as pool:
        await port.until(lambda: port.of("opened"))
        transport = pool._sockets[1]._transport
        assert transport is not None
        written: list[bytes] = []
        pool._sockets[1]._transport = _Spy(transport, written)  # type: ignore[assignment]
        pool.send(1, b"one")
        pool.send(1, b"two")
        assert written == []
        pool.flush()
        assert len(written) == 1
        assert len(written[0]) == 2 * (2 + 4 + 3)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(written) == 1


def test_what_is_flushed_is_with_the_kernel_at_once_however_little_it_is() -> None:
    """On the loop that the worker runs on: the first cancels of a sweep leave while the last ones are made."""

    async def scenario() -> None:
        port = Recorder()
        async with RawVenue(accept_and_read_nothing).listening() as venue, running(settings(venue.port), port) as pool:
            await port.until(lambda: port.of("opened"))
            pool.send(1, b"one")
            pool.flush()
            there = venue.peers[0].writer.get_extra_info("socket")
            assert _unread(there.fileno()) == 2 + 4 + 3

    async def accept_and_read_nothing(peer: Peer) -> None:
        await peer.accept()
        await asyncio.Event().wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


def _unread(descriptor: int) -> int:
    """Bytes that the kernel holds for whoever reads next."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)


class _Spy:
    def __init__(self, transport: asyncio.Transport, written: list[bytes]) -> None:
        self._transport = transport
        self._written = written

    def write(self, data: bytes) -> None:
        self._written.append(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)


async def test_a_peer_that_stops_reading_is_dropped_at_the_limit_of_unsent_bytes() -> None:
    released = asyncio.Event()

    async def behave(peer: Peer) -> None:
        await peer.accept()
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await released.wait()

    port = Recorder()
    limits = Limits(max_unsent=1_000_000, close_timeout=0.1)
    async with RawVenue(behave, stay).listening() as venue, running(settings(venue.port), port, limits=limits) as pool:
        await port.until(lambda: port.of("opened"))
        sent = 0
        async with asyncio.timeout(10):
            while not port.of("lost"):
                pool.send(1, b"x" * 100_000)
                pool.flush()
                sent += 1
                await asyncio.sleep(0)
        assert port.reasons[0].startswith("the venue does not read: ")
        assert sent < 200
        released.set()
        await port.until(lambda: len(port.of("opened")) == 2)


async def test_a_dropped_session_is_lost_in_the_next_turn_and_nothing_comes_from_it() -> None:
    async def behave(peer: Peer) -> None:
        await peer.accept()
        while True:
            peer.write(text(b"noise") * 100)
            await peer.writer.drain()

    port = Recorder()
    async with RawVenue(behave, stay).listening() as venue, running(settings(venue.port), port) as pool:
        await port.until(lambda: port.of("frame"))
        frames = len(port.frames)
        pool.drop(1, "no Pong in 2 s")
        pool.drop(1, "again")
        pool.send(1, b"too late")
        pool.flush()
        assert port.of("lost") == [], "never from within a call"
        start = time.monotonic()
        await port.until(lambda: port.of("lost"))
        assert time.monotonic() - start < 0.5
        assert port.of("lost") == [(1, "no Pong in 2 s")]
        assert len(port.frames) == frames
        pool.send(1, b"after the end")
        pool.drop(1, "after the end")
        pool.session_ready(1)
        await port.until(lambda: len(port.of("opened")) == 2)
    assert [session for session, _ in port.of("lost")] == [1, 2]


async def test_a_session_dropped_within_a_read_gives_what_that_read_brought_and_nothing_after_it() -> None:
    async def behave(peer: Peer) -> None:
        await peer.accept()
        peer.write(text(b"1") + text(b"2") + text(b"3") + served(Opcode.PING, b"") + text(b"4"))
        await peer.reader.read()

    port = Recorder()
    async with RawVenue(behave, stay).listening() as venue, running(settings(venue.port), port) as pool:
        port.on_frame = lambda session, data: pool.drop(session, "enough") if data == b"2" else None
        await port.until(lambda: port.of("lost"))
    assert port.frames[:3] == [b"1", b"2", b"3"]
    assert b"4" not in port.frames
    assert port.of("lost")[0] == (1, "enough")


async def test_close_waits_for_the_answer_and_still_tells_what_comes_before_it() -> None:
    codes: list[tuple[int, bytes]] = []

    async def behave(peer: Peer) -> None:
        await peer.accept()
        codes.append(await peer.read_frame())
        peer.write(text(b"a report on the way") + close(1000))

    port = Recorder()
    async with RawVenue(behave).listening() as venue, running(settings(venue.port), port):
        await port.until(lambda: port.of("opened"))
    assert codes == [(Opcode.CLOSE, (1000).to_bytes(2, "big"))]
    assert port.frames == [b"a report on the way"]
    assert port.of("lost") == [(1, "closed by the worker")]


async def test_close_does_not_wait_longer_than_its_limit() -> None:
    async def behave(peer: Peer) -> None:
        await peer.accept()
        await asyncio.Event().wait()

    port = Recorder()
    limits = Limits(close_timeout=0.1)
    async with RawVenue(behave).listening() as venue, running(settings(venue.port), port, limits=limits) as pool:
        await port.until(lambda: port.of("opened"))
        start = time.monotonic()
        await pool.close()
        assert time.monotonic() - start < 0.9
    await asyncio.sleep(0)
    assert port.of("lost") == [(1, "closed by the worker")]
