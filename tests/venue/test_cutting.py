"""Cutting the stream into messages: whatever the bytes and the slices, the result is that of websockets' own parser."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from itertools import pairwise
from typing import cast

from hypothesis import example, given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from tests.venue.support import Recorder, close, served
from worker.config.addresses import VenueAddress
from worker.venue.socket import Limits, VenueSocket

LIMIT = 300


class Wire:
    """The least of a transport: keeps what was written."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def get_write_buffer_size(self) -> int:
        return 0


async def told(parts: list[bytes]) -> tuple[list[bytes], list[str]]:
    """Messages and endings of a session whose server sends ``parts`` one by one."""
    port = Recorder()
    endings: list[str] = []
    socket = VenueSocket(
        1,
        VenueAddress(False, "127.0.0.1", 80, "/ws/v1"),
        port,
        Limits(max_message=LIMIT),
        lambda opened: None,
        lambda ended, reason: endings.append(reason),
    )
    wire = Wire()
    socket.connection_made(cast(asyncio.Transport, wire))
    asking = asyncio.create_task(socket.upgrade({}))
    await asyncio.sleep(0)
    key = bytes(wire.written).split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
    proof = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    socket.data_received(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + proof
        + b"\r\n\r\n"
    )
    await asking
    for part in parts:
        socket.data_received(part)
    socket.connection_lost(None)
    return port.frames, endings


def by_websockets(stream: bytes) -> tuple[list[bytes], bool, bool]:
    """Messages, whether a close frame came, whether the protocol was broken: all by the library."""
    protocol = ClientProtocol(parse_uri("ws://127.0.0.1/"), state=State.OPEN, max_size=LIMIT)
    protocol.receive_data(stream)
    messages: list[bytes] = []
    parts = b""
    for event in protocol.events_received():
        assert isinstance(event, Frame)
        if event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            parts += bytes(event.data)
            if event.fin:
                messages.append(parts)
                parts = b""
    return messages, protocol.close_rcvd is not None, protocol.parser_exc is not None


frames = st.one_of(
    st.binary(max_size=20).map(lambda payload: served(Opcode.TEXT, payload)),
    st.integers(120, 130).map(lambda size: served(Opcode.TEXT, b"m" * size)),
    st.binary(max_size=5).map(lambda payload: served(Opcode.TEXT, payload, fin=False)),
    st.binary(max_size=5).map(lambda payload: served(Opcode.CONT, payload, fin=False)),
    st.binary(max_size=5).map(lambda payload: served(Opcode.CONT, payload)),
    st.binary(max_size=5).map(lambda payload: served(Opcode.BINARY, payload)),
    st.binary(max_size=5).map(lambda payload: served(Opcode.PING, payload)),
    st.binary(max_size=5).map(lambda payload: served(Opcode.PONG, payload)),
    st.sampled_from([close(1000), close(None), close(4001, "bye"), close(1005)]),
    st.integers(LIMIT - 2, LIMIT + 2).map(lambda size: served(Opcode.TEXT, b"b" * size)),
    st.sampled_from(
        [b"\x81\xfe", b"\x81\x7f", b"\x81\x7f\x00\x00\x00\x00\x00\x00\x00\x05hello", b"\x81\x7e\x00\x02ok"]
    ),
)
streams = st.one_of(
    st.lists(frames, max_size=12).map(b"".join),
    st.lists(
        st.integers(LIMIT // 3, LIMIT // 2).map(lambda size: served(Opcode.CONT, b"c" * size, False)), max_size=4
    ).map(lambda rest: served(Opcode.TEXT, b"start", False) + b"".join(rest)),
    st.binary(max_size=60),
)


def sliced(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges) if start < end]


@given(streams, st.lists(st.integers(0, 4000), max_size=20))
@example(served(Opcode.TEXT, b"b" * (LIMIT + 1)), [5])
@example(served(Opcode.TEXT, b"b" * (LIMIT + 1)), [])
@example(served(Opcode.TEXT, b"start", False) + served(Opcode.TEXT, b"m" * 130), [])
@example(b"\x81\x7f" + (1 << 62).to_bytes(8, "big") + b"xyz", [10])
@example(served(Opcode.TEXT, b"ab") + close(1000) + served(Opcode.TEXT, b"after"), [])
def test_messages_and_ending_are_those_of_the_library_for_any_stream_and_any_slicing(
    stream: bytes, cuts: list[int]
) -> None:
    messages, closed, broken = by_websockets(stream)
    got, endings = asyncio.run(told(sliced(stream, cuts)))
    assert got == messages
    assert len(endings) == 1
    assert ("broke the WebSocket protocol" in endings[0] or "too big" in endings[0]) == broken
    assert endings[0].startswith("the venue closed the session") == (closed and not broken)


def test_a_stream_cut_at_every_byte_gives_the_whole_messages_before_the_cut() -> None:
    messages = [b'{"n":1}', b"x" * 200, b"", b'{"n":2}']
    stream = b"".join(served(Opcode.TEXT, message) for message in messages)
    for at in range(len(stream) + 1):
        expected, _, _ = by_websockets(stream[:at])
        for parts in ([stream[:at]], [stream[step : step + 1] for step in range(at)]):
            got, endings = asyncio.run(told(parts))
            assert got == expected
            assert endings == ["connection closed"]
