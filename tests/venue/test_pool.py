"""The pool: how many sessions, when it tries again, and what it shows."""

from __future__ import annotations

import asyncio
import hmac
import json
import subprocess
import sys
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from itertools import count, pairwise
from pathlib import Path
from random import Random
from signal import SIGCONT, SIGSTOP

import pytest

from tests.venue.support import (
    HELLO,
    KEY,
    SECRET,
    Behaviour,
    Peer,
    RawVenue,
    Recorder,
    close,
    credentials,
    running,
    settings,
    stay,
    text,
)
from worker.config.secret import Secret
from worker.errors import ConfigError
from worker.venue.pool import Pool
from worker.venue.socket import Limits
from worker.wire.signature import api_sign


def refusing(status: str, *headers: str) -> Behaviour:
    async def behave(peer: Peer) -> None:
        await peer.read_request()
        peer.write("\r\n".join([f"HTTP/1.1 {status}", *headers, "Content-Length: 0", "", ""]).encode())
        await peer.reader.read()

    return behave


def closing(code: int) -> Behaviour:
    async def behave(peer: Peer) -> None:
        await peer.accept()
        peer.write(text(HELLO) + close(code))
        await peer.reader.read()

    return behave


def gaps(venue: RawVenue) -> list[float]:
    return [later - earlier for earlier, later in pairwise(venue.arrivals)]


async def test_as_many_sessions_as_asked_for_and_no_more() -> None:
    port = Recorder()
    async with RawVenue(stay).listening() as venue, running(settings(venue.port, sessions=5), port) as pool:
        await port.until(lambda: len(port.frames) == 5)
        assert port.of("opened") == [(session, session - 1) for session in range(1, 6)]
        assert [(slot.slot, slot.session, slot.ready) for slot in pool.status()] == [
            (number, number + 1, False) for number in range(5)
        ]
        pool.drop(3, "made to")
        await port.until(lambda: len(port.of("opened")) == 6)
        assert port.of("opened")[-1] == (6, 2), "a new number, the slot that was free"
        await asyncio.sleep(0.1)
        assert len(venue.peers) == 6


async def test_one_attempt_at_a_time() -> None:
    upgrading = most = 0

    async def slow(peer: Peer) -> None:
        nonlocal upgrading, most
        upgrading += 1
        most = max(most, upgrading)
        await peer.read_request()
        await asyncio.sleep(0.02)
        upgrading -= 1
        peer.write(peer.acceptance() + text(HELLO))
        await peer.reader.read()

    port = Recorder()
    async with RawVenue(slow).listening() as venue, running(settings(venue.port, sessions=4), port):
        await port.until(lambda: len(port.frames) == 4)
    assert most == 1


async def test_a_session_that_is_lost_after_being_ready_for_some_time_starts_the_waits_over() -> None:
    port = Recorder()
    slow = {"reconnect_min": 0.01, "reconnect_max": 10.0, "stable_after": 0.05}
    venue = RawVenue(stay)
    async with venue.listening(), running(settings(venue.port, **slow), port, rng=_Highest()) as pool:
        for session in range(1, 9):
            await port.until(lambda session=session: len(port.of("opened")) == session)  # type: ignore[misc]
            pool.session_ready(session)
            assert pool.status()[0].ready
            await asyncio.sleep(0.06)
            pool.drop(session, "made to")
        await port.until(lambda: len(port.of("opened")) == 9)
    assert max(gaps(venue)) < 2.0  # without starting over the last would be 6.4 s


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1013, 4001])
async def test_accepted_then_closed_grows_like_any_failure(code: int) -> None:
    port = Recorder()
    async with RawVenue(closing(code)).listening() as venue:
        grow = settings(venue.port, reconnect_min=0.01, reconnect_max=10.0)
        async with running(grow, port, rng=_Highest()) as pool:
            await port.until(lambda: len(port.of("lost")) == 4)
            status = pool.status()[0]
            assert status.session is None
            assert f"code {code}" in (status.last_error or "")
            assert 0.2 < (status.next_attempt or 0) <= 0.401
            assert pool.last_errors == {0: status.last_error}
    assert all(gap >= 0.9 * least for gap, least in zip(gaps(venue), (0.05, 0.1, 0.2), strict=True))


class _Highest(Random):
    """The longest wait each time."""

    def random(self) -> float:
        return 1.0


async def test_ready_for_too_short_a_time_is_a_failure_too() -> None:
    port = Recorder()
    async with RawVenue(closing(1013)).listening() as venue:
        grow = settings(venue.port, reconnect_min=0.01, reconnect_max=10.0, stable_after=60.0)
        async with running(grow, port, rng=_Highest()) as pool:
            port.on_frame = lambda session, data: pool.session_ready(session)
            await port.until(lambda: len(port.of("lost")) == 4)
    assert all(gap >= 0.9 * least for gap, least in zip(gaps(venue), (0.05, 0.1, 0.2), strict=True))


async def test_other_sessions_live_on_while_one_slot_is_refused() -> None:
    port = Recorder()
    async with (
        RawVenue(stay, refusing("403 Forbidden")).listening() as venue,
        running(settings(venue.port, sessions=2), port) as pool,
    ):
        await port.until(lambda: len(port.of("failed")) >= 3)
        pool.send(1, b"still here")
        assert [slot.session for slot in pool.status()] == [1, None]
        assert not port.of("lost")


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "404 Not Found", "302 Found"])
async def test_from_the_third_refusal_on_attempts_are_far_apart_for_all_slots_together(status: str) -> None:
    port = Recorder()
    async with (
        RawVenue(refusing(status, "Location: /")).listening() as venue,
        running(settings(venue.port, sessions=3, auth_retry_min=0.5), port) as pool,
    ):
        await port.until(lambda: len(port.of("failed")) == 5)
        assert all(f"HTTP {status[:3]}" in (slot.last_error or "") for slot in pool.status())
        assert all((slot.next_attempt or 0) > 0.3 for slot in pool.status())
    assert max(gaps(venue)[:2]) < 0.45
    assert min(gaps(venue)[2:]) >= 0.48


async def test_a_slot_that_was_fine_is_not_held_back_by_refusals_of_another() -> None:
    port = Recorder()
    behaviours = [stay, *[refusing("403 Forbidden")] * 3, stay]
    async with (
        RawVenue(*behaviours).listening() as venue,
        running(settings(venue.port, sessions=2, auth_retry_min=30.0), port) as pool,
    ):
        await port.until(lambda: port.of("opened"))
        pool.session_ready(1)
        await port.until(lambda: len(port.of("failed")) == 3)
        await asyncio.sleep(0.06)
        pool.drop(1, "made to")
        await port.until(lambda: len(port.of("opened")) == 2)
        assert port.of("opened")[1][1] == 0
        assert (pool.status()[1].next_attempt or 0) > 20


async def test_a_server_error_grows_without_being_a_refusal() -> None:
    port = Recorder()
    async with (
        RawVenue(refusing("500 Oops")).listening() as venue,
        running(settings(venue.port, auth_retry_min=30.0), port),
    ):
        await port.until(lambda: len(port.of("failed")) == 8)


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
async def test_retry_after_is_obeyed_by_all_slots(status: str) -> None:
    port = Recorder()
    async with (
        RawVenue(refusing(status, "Retry-After: 1"), stay).listening() as venue,
        running(settings(venue.port, sessions=2), port) as pool,
    ):
        await port.until(lambda: port.of("failed"))
        assert all(0.5 < (slot.next_attempt or 0) <= 1.1 for slot in pool.status())
        await port.until(lambda: len(port.of("opened")) == 2)
    assert gaps(venue)[0] >= 0.99


async def test_an_endless_retry_after_is_not_believed() -> None:
    port = Recorder()
    async with (
        RawVenue(refusing("503 Busy", "Retry-After: 99999999")).listening() as venue,
        running(settings(venue.port), port) as pool,
    ):
        await port.until(lambda: port.of("failed"))
        assert 299 < (pool.status()[0].next_attempt or 0) <= 301


async def test_every_attempt_is_signed_anew_with_the_credentials_of_that_moment() -> None:
    held = [SECRET, SECRET, "0examp1esecret7not8for9trading3x"]
    port = Recorder()

    def rotating() -> tuple[Secret, Secret]:
        return Secret(KEY), Secret(held.pop(0) if len(held) > 1 else held[0])

    async with (
        RawVenue(refusing("500 Oops"), refusing("500 Oops"), stay).listening() as venue,
        running(settings(venue.port), port, credentials=rotating),
    ):
        await port.until(lambda: port.frames)
    stamps = [peer.headers["apitimestamp"] for peer in venue.peers]
    assert len(set(stamps)) == 3
    assert stamps == sorted(stamps)
    for peer, secret in zip(venue.peers, [SECRET, SECRET, "0examp1esecret7not8for9trading3x"], strict=True):
        assert peer.headers["apisign"] == api_sign(secret, peer.headers["apitimestamp"], "127.0.0.1", "/ws/v1")


@pytest.mark.parametrize("padding", [True, False])
@pytest.mark.parametrize(("alphabet", "encode"), [("url", urlsafe_b64encode), ("standard", b64encode)])
async def test_a_signature_is_written_as_the_settings_say(
    alphabet: str, padding: bool, encode: Callable[[bytes], bytes]
) -> None:
    ticks = count(1_773_000_000_000_000)  # so many that one of them tells the alphabets apart
    port = Recorder()
    async with RawVenue(stay).listening() as venue:
        written = settings(venue.port, sessions=6, signature_alphabet=alphabet, signature_padding=padding)
        async with running(written, port, utc_us=lambda: next(ticks)):
            await port.until(lambda: len(port.of("opened")) == 6)
    for peer in venue.peers:
        message = "\n".join(("GET", peer.headers["apitimestamp"], "127.0.0.1", "/ws/v1"))
        raw = hmac.new(SECRET.encode(), message.encode(), "sha256").digest()
        assert peer.headers["apisign"] == encode(raw).decode().rstrip("" if padding else "=")
    signed = "".join(peer.headers["apisign"] for peer in venue.peers)
    assert set(signed) & set("-_" if alphabet == "url" else "+/"), "no signature told the alphabets apart"


async def test_no_timestamp_is_used_twice_however_coarse_the_clock() -> None:
    ticks = iter([0, 0, 900_000, 900_000, 999_999])
    port = Recorder()

    def clock() -> int:
        return 1_773_000_000_000_000 + next(ticks, 1_000_000)

    async with RawVenue(stay).listening() as venue:
        coarse = settings(venue.port, sessions=2, timestamp_precision="seconds")
        async with running(coarse, port, utc_us=clock):
            await port.until(lambda: len(port.of("opened")) == 2)
    stamps = [peer.headers["apitimestamp"] for peer in venue.peers]
    assert len(set(stamps)) == 2
    assert all(stamp.endswith(".000000Z") for stamp in stamps)


async def test_credentials_that_cannot_be_had_or_used_fail_the_attempt_without_showing_them(tmp_path: Path) -> None:
    steps: list[Exception | tuple[Secret, Secret]] = [
        FileNotFoundError(2, "No such file or directory", str(tmp_path / "secret")),
        ConfigError("venue.api_secret is not set"),
        (Secret(KEY), Secret(SECRET + "\n")),
        (Secret(""), Secret(SECRET)),
        credentials(),
    ]

    def reading() -> tuple[Secret, Secret]:
        step = steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    port = Recorder()
    async with RawVenue(stay).listening() as venue, running(settings(venue.port), port, credentials=reading):
        await port.until(lambda: port.frames)
    assert [reason for _, reason in port.of("failed")] == [
        f"cannot read the API credentials: No such file or directory ({tmp_path / 'secret'})",
        "cannot read the API credentials: venue.api_secret is not set",
        "cannot log in: the API secret must be visible ASCII characters (0x21-0x7E), at least one",
        "cannot log in: the API key must be visible ASCII characters (0x21-0x7E), at least one",
    ]


async def test_ready_clears_the_error_that_is_shown() -> None:
    port = Recorder()
    async with RawVenue(refusing("500 Oops"), stay).listening() as venue, running(settings(venue.port), port) as pool:
        await port.until(lambda: port.frames)
        assert "HTTP 500" in (pool.status()[0].last_error or "")
        pool.session_ready(port.of("opened")[0][0])
        assert pool.status()[0].last_error is None
        assert pool.last_errors == {}


async def test_an_answer_that_comes_together_with_the_time_limit_is_a_session_or_a_failure_and_not_both() -> None:
    async def behave(peer: Peer) -> None:
        await peer.accept()
        peer.write(text(HELLO))
        time.sleep(0.4)  # noqa: ASYNC251 - when the loop goes on, answer and time limit are both due
        await stay_open.wait()

    stay_open = asyncio.Event()
    port = Recorder()
    async with RawVenue(behave, stay).listening() as venue, running(settings(venue.port, connect_timeout=0.3), port):
        await port.until(lambda: port.frames)
        failures = len(port.of("failed"))
        assert len(port.of("opened")) == 1
        assert len(venue.peers) == failures + 1
        await asyncio.sleep(0.1)
        assert len(port.of("failed")) == failures
        assert not port.of("lost")


async def test_close_ends_an_attempt_in_the_middle_and_run_returns() -> None:
    port = Recorder()

    async def mute(peer: Peer) -> None:
        await peer.reader.read()

    async with RawVenue(mute).listening() as venue:
        pool = Pool(settings(venue.port, connect_timeout=60.0), credentials, port, Random(1))
        run = asyncio.create_task(pool.run())
        while not venue.peers:
            await asyncio.sleep(0.001)
        async with asyncio.timeout(1):
            await pool.close()
            await run
            await pool.close()
    assert port.told == []


async def test_close_before_run_makes_no_attempt() -> None:
    port = Recorder()
    async with RawVenue(stay).listening() as venue:
        pool = Pool(settings(venue.port), credentials, port, Random(1))
        await pool.close()
        async with asyncio.timeout(1):
            await pool.run()
    assert venue.peers == []


async def test_a_run_that_is_cancelled_drops_its_sessions() -> None:
    port = Recorder()
    async with RawVenue(stay).listening() as venue:
        pool = Pool(settings(venue.port, sessions=2), credentials, port, Random(1))
        run = asyncio.create_task(pool.run())
        await port.until(lambda: len(port.frames) == 2)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        await port.until(lambda: len(port.of("lost")) == 2)


async def test_a_run_cancelled_in_the_middle_of_an_attempt_ends_at_once() -> None:
    port = Recorder()

    async def mute(peer: Peer) -> None:
        await peer.reader.read()

    async with RawVenue(mute).listening() as venue:
        run = asyncio.create_task(Pool(settings(venue.port), credentials, port, Random(1)).run())
        while not venue.peers:
            await asyncio.sleep(0.001)
        run.cancel()
        async with asyncio.timeout(1):
            with pytest.raises(asyncio.CancelledError):
                await run
    assert port.told == []


async def test_a_venue_that_is_killed_and_started_again_is_found_again() -> None:
    port = Recorder()
    async with RawVenue(stay).listening() as first:
        number = first.port
        async with running(settings(number, sessions=2), port) as pool:
            await port.until(lambda: len(port.frames) == 2)
            for peer in first.peers:
                peer.writer.transport.abort()
            await port.until(lambda: len(port.of("lost")) == 2)
            await port.until(lambda: len(port.of("opened")) == 4)
            assert all(slot.session for slot in pool.status())


# ---- a peer that is frozen -----------------------------------------------------------------------------------------

FROZEN_VENUE = """
import asyncio, json, sys
from websockets.asyncio.server import serve

async def session(connection):
    await connection.send("hello", text=True)
    async for message in connection:
        await connection.send(message)

async def main():
    async with serve(session, "127.0.0.1", 0, ping_interval=None) as server:
        print(json.dumps(server.sockets[0].getsockname()[1]), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", FROZEN_VENUE], stdout=subprocess.PIPE) as started:
        yield started
        started.send_signal(SIGCONT)
        started.kill()


async def test_a_frozen_venue_delays_neither_dropping_a_session_nor_closing(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    number = json.loads(await asyncio.to_thread(process.stdout.readline))
    port = Recorder()
    limits = Limits(close_timeout=0.2)
    venue = settings(number, sessions=2, connect_timeout=0.4)
    async with running(venue, port, limits=limits) as pool:
        await port.until(lambda: len(port.frames) == 2)
        process.send_signal(SIGSTOP)
        pool.send(1, b"x" * 100_000)
        pool.flush()
        start = time.monotonic()
        pool.drop(1, "no frame in 2 s")
        await port.until(lambda: port.of("lost"))
        assert time.monotonic() - start < 0.5
        await port.until(lambda: port.of("failed"))
        assert port.of("failed")[0][1] == f"upgrade: no answer from 127.0.0.1:{number} in 0.4 s"
        start = time.monotonic()
        await pool.close()
        assert time.monotonic() - start < 1.0
    assert sorted(session for session, _ in port.of("lost")) == [1, 2]


async def test_fifty_pools_that_lose_the_venue_together_come_back_spread_out() -> None:
    async def shared(peer: Peer) -> None:
        await peer.accept()
        peer.write(text(HELLO))
        await gone.wait()

    async def later(peer: Peer) -> None:
        await stay(peer)

    gone = asyncio.Event()
    ports = [Recorder() for _ in range(50)]
    async with RawVenue(*[shared] * 50, later).listening() as venue:
        one = settings(venue.port, reconnect_min=0.1, reconnect_max=30.0)
        pools = [Pool(one, credentials, port, Random(seed)) for seed, port in enumerate(ports)]
        runs = [asyncio.create_task(pool.run()) for pool in pools]
        try:
            async with asyncio.timeout(10):
                while len(venue.peers) < 50:
                    await asyncio.sleep(0.01)
            for port in ports:
                await port.until(lambda port=port: port.frames)  # type: ignore[misc]
            lost_at = asyncio.get_running_loop().time()
            gone.set()
            for port in ports:
                await port.until(lambda port=port: len(port.frames) == 2)  # type: ignore[misc]
        finally:
            await asyncio.gather(*(pool.close() for pool in pools))
            await asyncio.gather(*runs)
    back = [at - lost_at for at in venue.arrivals[50:]]
    assert len(back) == 50
    assert min(back) >= 0.09
    assert max(back) < 5.0
    slots = [sum(0.1 + 0.1 * step <= at < 0.2 + 0.1 * step for at in back) for step in range(4)]
    assert max(slots) <= 35, slots
