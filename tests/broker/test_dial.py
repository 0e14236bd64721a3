"""Which URL is tried when, and how long the waits are."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import pytest

from tests.broker.recorder import dial_to
from tests.broker.scripted import Peer, scripted
from tests.broker.test_link import User
from tests.support.timing import SECOND
from worker.broker.dial import REFUSED_LEAST_S, STABLE_AFTER_S, Dial, Endpoint
from worker.broker.driver import driver_url
from worker.config import Secret
from worker.config.addresses import BrokerAddress
from worker.errors import BrokerError, BrokerRefusedError, ConfigError


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


async def stays(peer: Peer) -> None:
    await peer.open()
    await peer.closed()


async def test_the_urls_are_tried_in_turn_beginning_behind_the_last() -> None:
    opened: list[str] = []

    def script_of(name: str):  # type: ignore[no-untyped-def]
        async def script(peer: Peer) -> None:
            opened.append(name)
            await stays(peer)

        return script

    dead = f"amqp://user:secret@127.0.0.1:{free_port()}/"
    async with scripted(script_of("a")) as a, scripted(script_of("b")) as b:
        dial = dial_to(a, dead, b)
        for _ in range(3):
            link = await dial.connect("consume kill", User())
            await link.close(0.1)
        assert opened == ["a", "b", "a"]
        link = await dial.connect("consume cancel", User())  # each role has its own turn
        await link.close(0.1)
        assert opened[-1] == "a"


async def test_when_none_answers_each_is_named_and_no_password_shown() -> None:
    one, two = free_port(), free_port()
    dial = dial_to(f"amqp://user:s3cret@127.0.0.1:{one}/", f"amqp://user:s3cret@127.0.0.1:{two}/")
    with pytest.raises(BrokerError) as failed:
        await dial.connect("test", User())
    assert not isinstance(failed.value, BrokerRefusedError)
    assert f"127.0.0.1:{one}" in str(failed.value)
    assert f"127.0.0.1:{two}" in str(failed.value)
    assert "s3cret" not in repr(failed.value)


async def test_a_name_that_cannot_be_resolved_is_told() -> None:
    with pytest.raises(BrokerError, match=r"broker\.invalid:5672"):
        await dial_to("amqp://user:secret@broker.invalid/").connect("test", User())


async def test_a_resolver_that_hangs_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(*_: object, **__: object) -> None:
        await asyncio.sleep(30)

    loop = asyncio.get_running_loop()
    dial = dial_to("amqp://user:secret@broker.invalid/", connect_timeout_s=0.1)

    class Hanging:
        def __getattr__(self, name: str) -> object:
            return hangs if name == "create_connection" else getattr(loop, name)

    monkeypatch.setattr(asyncio, "get_running_loop", Hanging)
    began = loop.time()
    with pytest.raises(BrokerError, match=r"no answer within 0\.1 s"):
        await dial.connect("test", User())
    assert loop.time() - began < 2 * SECOND


async def test_the_urls_are_read_before_every_attempt() -> None:
    async with scripted(stays) as url:
        answers: list[Sequence[str] | ConfigError] = [
            [f"amqp://user:old@127.0.0.1:{free_port()}/"],
            ConfigError("broker.url_file /run/secrets/url can't be read"),
            [],
            ["amqp://user:pa ss@host/"],
            [url],
        ]

        def urls() -> Sequence[str]:
            answer = answers.pop(0)
            if isinstance(answer, ConfigError):
                raise answer
            return answer

        dial = Dial(urls, name="test")
        for reason in ("127.0.0.1", "can't be read", "must not be empty", r"broker\.url must be"):
            with pytest.raises(BrokerError, match=reason) as failed:
                await dial.connect("test", User())
            assert "pa ss" not in str(failed.value)
        link = await dial.connect("test", User())
        await link.close(0.1)


async def test_only_if_all_refuse_it_is_a_refusal() -> None:
    async def refuses(peer: Peer) -> None:
        await peer.start()

    async with scripted(refuses) as url:
        with pytest.raises(BrokerRefusedError):
            await dial_to(url, url).connect("test", User())
        with pytest.raises(BrokerError) as failed:
            await dial_to(url, f"amqp://user:secret@127.0.0.1:{free_port()}/").connect("test", User())
        assert not isinstance(failed.value, BrokerRefusedError)


def waits(jitter: float, error: BrokerError, count: int = 10, up_s: float = 0.0) -> list[float]:
    dial = Dial(lambda: ["amqp://localhost"], name="test", jitter=lambda: jitter)
    retry = dial.retry()
    return [retry.delay_after(error, up_s) for _ in range(count)]


def test_waits_grow_to_their_limit_with_full_jitter() -> None:
    longest = waits(1.0, BrokerError("x"))
    assert longest == sorted(longest)
    assert longest[0] < 1.0
    assert longest[-1] == 10.0
    assert set(waits(0.0, BrokerError("x"))) == {0.1}


def test_waits_are_longer_while_the_broker_refuses_us() -> None:
    assert min(waits(0.0, BrokerRefusedError("x"))) >= REFUSED_LEAST_S


def test_a_link_that_was_well_starts_the_waits_over_and_one_that_fell_at_once_does_not() -> None:
    well = waits(1.0, BrokerError("x"), up_s=STABLE_AFTER_S)
    assert len(set(well)) == 1
    assert waits(1.0, BrokerError("x"), up_s=STABLE_AFTER_S - 0.1) == waits(1.0, BrokerError("x"))


@pytest.mark.parametrize(
    ("host", "vhost", "by_certificate", "url"),
    [
        ("rabbit", "/", False, "amqps://us%2Fer:p%40%3A%2F@rabbit:5671/%2F?heartbeat=5&name=w%20role"),
        ("::1", "a/b", False, "amqps://us%2Fer:p%40%3A%2F@[::1]:5671/a%2Fb?heartbeat=5&name=w%20role"),
        ("rabbit", "v", True, "amqps://rabbit:5671/v?heartbeat=5&name=w%20role&auth=external"),
    ],
)
def test_the_drivers_url_escapes_each_part(host: str, vhost: str, by_certificate: bool, url: str) -> None:
    address = BrokerAddress(True, host, 5671, "us/er", Secret("p@:/"), vhost)
    assert driver_url(Endpoint(address, by_certificate), 5, "w role") == url
