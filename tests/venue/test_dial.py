"""Name look-up, TCP and TLS on the way to the venue."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.venue.support import HELLO, Peer, RawVenue, Recorder, running, settings, stay
from worker.errors import VenueError
from worker.venue.dial import Address, Resolver, Tls, connect

ELSEWHERE = "venue.example"


def address_of(port: int) -> Address:
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))


class Lookup:
    """Stands in for socket.getaddrinfo: numbers are answered at once, names as the test wants."""

    def __init__(self, answer: list[Address] | OSError | UnicodeError) -> None:
        self.answer = answer
        self.asked = 0
        self.go = threading.Event()
        self.go.set()

    def __call__(self, host: str, port: int, *, flags: int = 0, **rest: Any) -> list[Address]:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        self.asked += 1
        assert self.go.wait(10)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def open_descriptors() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def swallowing() -> tuple[socket.socket, socket.socket]:
    """A listener whose backlog is full: further connections are never answered."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    filler = socket.create_connection(listener.getsockname())
    return listener, filler


# ---- name look-up --------------------------------------------------------------------------------------------------


async def test_a_number_is_no_look_up() -> None:
    found = await Resolver("127.0.0.1", 8443).resolve()
    assert [address for *_, address in found] == [("127.0.0.1", 8443)]
    assert [address[:2] for *_, address in await Resolver("::1", 8443).resolve()] == [("::1", 8443)]


async def test_localhost_is_found() -> None:
    assert ("127.0.0.1", 8443) in [address for *_, address in await Resolver("localhost", 8443).resolve()]


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "name or service not known"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), "temporary failure in name"),
        (UnicodeError("label too long"), "not a valid host name"),
    ],
)
async def test_a_name_that_is_not_found_fails_the_attempt_and_is_asked_again(
    failure: OSError | UnicodeError, words: str
) -> None:
    port = Recorder()
    async with RawVenue(stay).listening() as venue:
        lookup = Lookup(failure)
        resolver = Resolver(ELSEWHERE, venue.port, lookup)
        async with running(settings(venue.port), port, resolver=resolver):
            await port.until(lambda: port.of("failed"))
            lookup.answer = [address_of(venue.port)]
            await port.until(lambda: port.frames)
    assert port.reasons[0].startswith(f"name look-up: 127.0.0.1:{venue.port}: {words}")


async def test_a_look_up_that_hangs_blocks_nobody_and_is_not_asked_twice() -> None:
    port = Recorder()
    async with RawVenue(stay).listening() as venue:
        lookup = Lookup([address_of(venue.port)])
        lookup.go.clear()
        resolver = Resolver(ELSEWHERE, venue.port, lookup)
        threads = threading.active_count()
        async with running(settings(venue.port, connect_timeout=0.05), port, resolver=resolver):
            lag, last = 0.0, time.monotonic()
            while len(port.of("failed")) < 3:
                await asyncio.sleep(0.002)
                lag, last = max(lag, time.monotonic() - last), time.monotonic()
            assert lag < 2.0, "the loop never waits for the look-up"
            assert lookup.asked == 1
            assert threading.active_count() <= threads + 1
            assert port.reasons[0] == f"name look-up: no answer from 127.0.0.1:{venue.port} in 0.05 s"
            lookup.go.set()
            await port.until(lambda: port.frames)


def test_a_look_up_that_hangs_does_not_keep_the_process_from_ending() -> None:
    lookup = Lookup([])
    lookup.go.clear()

    async def ask() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await Resolver(ELSEWHERE, 1, lookup).resolve()

    start = time.monotonic()
    asyncio.run(ask())
    assert time.monotonic() - start < 1.0
    hanging = [thread for thread in threading.enumerate() if thread.name == "venue-look-up"]
    assert all(thread.daemon for thread in hanging)
    lookup.go.set()  # it finds its loop closed, and says nothing
    for thread in hanging:
        thread.join(5)


# ---- TCP -----------------------------------------------------------------------------------------------------------


async def test_nobody_listening_fails_the_attempt() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        number = reserved.getsockname()[1]
        port = Recorder()
        async with running(settings(number), port):
            await port.until(lambda: port.of("failed"))
    assert port.reasons[0] == f"TCP: 127.0.0.1:{number}: connection refused"


async def test_an_address_that_swallows_packets_costs_its_share_of_the_time_only() -> None:
    listener, filler = swallowing()
    async with RawVenue(stay).listening() as venue:
        start = time.monotonic()
        sock = await connect([address_of(listener.getsockname()[1]), address_of(venue.port)], 1.0)
        assert 0.4 < time.monotonic() - start < 1.0
        assert sock.getpeername() == ("127.0.0.1", venue.port)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        sock.close()
        with pytest.raises(TimeoutError):
            await connect([address_of(listener.getsockname()[1])], 0.05)
    listener.close()
    filler.close()


async def test_a_host_that_does_not_answer_is_a_failed_attempt_at_the_limit() -> None:
    listener, filler = swallowing()
    port = Recorder()
    number = listener.getsockname()[1]
    async with running(settings(number, connect_timeout=0.1), port):
        await port.until(lambda: port.of("failed"))
    assert port.reasons[0] == f"TCP: no answer from 127.0.0.1:{number} in 0.1 s"
    listener.close()
    filler.close()


async def test_an_unusable_address_family_is_passed_over() -> None:
    async with RawVenue(stay).listening() as venue:
        sock = await connect([(9999, socket.SOCK_STREAM, 0, "", ()), address_of(venue.port)], 1.0)
        sock.close()
    with pytest.raises(OSError, match="no address"):
        await connect([], 1.0)


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WS_PROXY", "WSS_PROXY", "SOCKS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    port = Recorder()
    async with RawVenue(stay).listening() as venue, running(settings(venue.port), port):
        await port.until(lambda: port.frames)
    assert not port.of("failed")


# ---- TLS -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_side(authority: trustme.CA, *names: str, **more: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names, **more).configure_cert(context)
    return context


def trusting(authority: trustme.CA, folder: Path) -> str:
    path = folder / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


async def test_tls_with_a_certificate_of_the_named_authority(authority: trustme.CA, tmp_path: Path) -> None:
    port = Recorder()
    venue = RawVenue(stay)
    async with venue.listening(server_side(authority, "localhost")):
        url = f"wss://localhost:{venue.port}/ws/v1"
        async with running(settings(0, url=url, ca_file=trusting(authority, tmp_path)), port) as pool:
            await port.until(lambda: port.frames)
            pool.send(1, b"x" * 200_000)
            pool.flush()
    assert port.frames == [HELLO]
    assert port.of("lost") == [(1, "closed by the worker")]


@pytest.mark.parametrize(
    ("names", "expired", "trusted", "words"),
    [
        (("localhost",), False, False, "certificate verification failed: "),
        (("localhost",), True, True, "certificate verification failed: certificate has expired"),
        (("venue.example",), False, True, "certificate verification failed: Hostname mismatch"),
    ],
)
async def test_a_certificate_that_does_not_hold_fails_the_attempt(
    authority: trustme.CA, tmp_path: Path, names: tuple[str, ...], expired: bool, trusted: bool, words: str
) -> None:
    more: dict[str, Any] = {}
    if expired:
        more = {"not_before": datetime.now(UTC) - timedelta(days=9), "not_after": datetime.now(UTC) - timedelta(days=1)}
    ca_file = trusting(authority, tmp_path) if trusted else None
    port = Recorder()
    venue = RawVenue(stay)
    async with venue.listening(server_side(authority, *names, **more)):
        url = f"wss://localhost:{venue.port}/ws/v1"
        async with running(settings(0, url=url, ca_file=ca_file), port):
            await port.until(lambda: port.of("failed"))
            assert f"TLS: localhost:{venue.port}: {words}" in port.reasons[0]
    assert not port.of("opened")
    assert all(not peer.headers for peer in venue.peers), "no credentials before the certificate was checked"


async def test_a_server_without_tls_fails_the_attempt(authority: trustme.CA, tmp_path: Path) -> None:
    async def plain(peer: Peer) -> None:
        await peer.reader.read(10)
        peer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.reader.read()

    port = Recorder()
    venue = RawVenue(plain)
    async with venue.listening():
        url = f"wss://localhost:{venue.port}/ws/v1"
        async with running(settings(0, url=url, ca_file=trusting(authority, tmp_path)), port):
            await port.until(lambda: port.of("failed"))
    assert port.reasons[0].startswith(f"TLS: localhost:{venue.port}: ")


async def test_a_handshake_that_is_never_answered_ends_at_the_limit_and_leaks_nothing(
    authority: trustme.CA, tmp_path: Path
) -> None:
    async def mute(peer: Peer) -> None:
        await peer.reader.read()

    port = Recorder()
    venue = RawVenue(mute)
    async with venue.listening():
        url = f"wss://localhost:{venue.port}/ws/v1"
        venue_settings = settings(0, url=url, ca_file=trusting(authority, tmp_path), connect_timeout=0.3)
        async with running(venue_settings, port):
            await port.until(lambda: len(port.of("failed")) >= 2)
            before = open_descriptors()
            await port.until(lambda: len(port.of("failed")) >= 7, within=10)
            assert open_descriptors() <= before + 2
    assert port.reasons[0] == f"TLS: no answer from localhost:{venue.port} in 0.3 s"


async def test_a_missing_file_of_authorities_fails_the_attempt_by_name(tmp_path: Path) -> None:
    port = Recorder()
    missing = tmp_path / "nothing.pem"
    async with running(settings(0, url="wss://localhost:1/ws/v1", ca_file=str(missing)), port):
        await port.until(lambda: port.of("failed"))
    assert port.reasons[0] == f"venue.ca_file {missing} can't be used: no such file or directory"


def test_the_authorities_are_read_again_when_their_file_changes(authority: trustme.CA, tmp_path: Path) -> None:
    path = Path(trusting(authority, tmp_path))
    tls = Tls(path)
    first = tls.context()
    assert tls.context() is first
    assert first.verify_mode is ssl.CERT_REQUIRED
    assert first.check_hostname
    path.write_bytes(path.read_bytes() + trustme.CA().cert_pem.bytes())
    second = tls.context()
    assert second is not first
    assert len(second.get_ca_certs()) == 2
    path.write_text("not a certificate")
    with pytest.raises(VenueError, match=r"venue\.ca_file .*ca\.pem can't be used: "):
        tls.context()
