"""One connection: hand-shake, heartbeats, limits, and every way to end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from pamqp import commands, heartbeat

from tests.broker import frames
from tests.broker.recorder import dial_to
from tests.broker.scripted import Peer, scripted
from tests.support.broker import Broker
from tests.support.certificates import Certificates
from tests.support.timing import SECOND, eventually
from worker.broker import methods
from worker.broker.dial import TlsFiles
from worker.broker.link import ChannelClosedError, Link
from worker.demo.node import PrivateNode
from worker.errors import BrokerError, BrokerRefusedError
from worker.wire.command import Properties


class User:
    """A link's user that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.raises = ""

    def _tell(self, *what: object) -> None:
        if what[0] == self.raises:
            raise RuntimeError("a bug")
        self.told.append(what)

    def delivered(self, channel: int, tag: int, redelivered: bool, properties: Properties, body: bytes) -> None:
        self._tell("delivered", channel, tag, body)

    def returned(self, channel: int, code: int, text: str, properties: Properties, body: bytes) -> None:
        self._tell("returned", channel, code, text)

    def confirmed(self, channel: int, tag: int, multiple: bool, stored: bool) -> None:
        self._tell("confirmed", channel, tag, multiple, stored)

    def channel_closed(self, channel: int, reason: str) -> None:
        self._tell("channel_closed", channel, reason)

    def consumer_canceled(self, channel: int) -> None:
        self._tell("consumer_canceled", channel)

    def blocked(self, reason: str | None) -> None:
        self._tell("blocked", reason)

    def lost(self, reason: str) -> None:
        self._tell("lost", reason)

    def batch_ended(self) -> None:
        if self.raises == "batch_ended":
            raise RuntimeError("a bug")


async def opened(url: str, user: User, heartbeat_s: int = 5, rpc_timeout_s: float = 10.0) -> Link:
    return await dial_to(url, heartbeat_s=heartbeat_s, rpc_timeout_s=rpc_timeout_s).connect("test", user)


async def ended(link: Link) -> str:
    async with asyncio.timeout(10 * SECOND):
        return await link.ended()


async def call_open(link: Link, channel: int = 1) -> None:
    await link.call(channel, methods.encode_channel_open(channel), methods.CHANNEL_OPEN_OK)


async def test_a_real_broker_lets_us_in_and_out(broker: Broker) -> None:
    user = User()
    link = await opened(broker.url, user)
    assert link.frame_max == 131_072
    await call_open(link)
    await link.close()
    assert await ended(link) == "closed by the worker"
    assert user.told == [("lost", "closed by the worker")]
    assert link.bytes_received > 0
    assert link.bytes_sent > 0
    await link.close()
    assert [link.is_up] == [False]


async def test_operators_see_the_connections_name(broker: Broker) -> None:
    if broker.management is None:
        pytest.skip("the broker was given from outside")
    link = await opened(broker.url, User())

    async def named() -> bool:
        connections = await broker.api("GET", f"vhosts/{broker.vhost}/connections")
        assert isinstance(connections, list)
        return [c["client_properties"].get("connection_name") for c in connections] == ["test test"]

    await eventually(named, 20 * SECOND)
    await link.close()


async def test_a_wrong_password_and_vhost_are_refusals_that_show_no_password(broker: Broker) -> None:
    credentials, _, rest = broker.url.partition("//")[2].partition("@")
    user, password = credentials.split(":")
    with pytest.raises(BrokerRefusedError, match="403") as refused:
        await opened(f"amqp://{user}:wr0ng-pass@{rest}", User())
    assert "wr0ng-pass" not in str(refused.value) + repr(refused.value)
    with pytest.raises(BrokerRefusedError, match="nowhere") as refused:
        await opened(f"amqp://{user}:{password}@{rest.partition('/')[0]}/nowhere", User())
    assert password not in str(refused.value)
    assert "127.0.0.1" in str(refused.value)


async def test_tls_is_verified(certificates: Certificates) -> None:
    folder = certificates.folder
    async with PrivateNode(tls=folder) as node:
        trusting = TlsFiles(ca_file=folder / "ca.pem")
        link = await dial_to(node.tls_url, tls=trusting).connect("test", User())
        await call_open(link)
        await link.close()
        with pytest.raises(BrokerError, match="certificate is not trusted"):
            await dial_to(node.tls_url).connect("test", User())
        with_client = TlsFiles(folder / "ca.pem", folder / "client.pem", folder / "client.key")
        address = node.tls_url.split("@")[1]
        with pytest.raises(BrokerRefusedError, match="EXTERNAL"):  # a plugin of the broker's, and not enabled
            await dial_to(f"amqps://{address}", tls=with_client).connect("test", User())
        link = await dial_to(node.tls_url, tls=with_client).connect("test", User())
        await link.close()


async def test_a_certificate_and_a_url_without_a_user_log_in_by_certificate_alone(certificates: Certificates) -> None:
    async def script(peer: Peer) -> None:
        start_ok = await peer.start()
        assert (start_ok.mechanism, start_ok.response) == ("EXTERNAL", "")

    folder = certificates.folder
    with_client = TlsFiles(folder / "ca.pem", folder / "client.pem", folder / "client.key")
    async with scripted(script, certificates.server_context()) as url:
        anonymous = url.replace("user:secret@", "")
        with pytest.raises(BrokerRefusedError, match="during log-in"):
            await dial_to(anonymous, tls=with_client).connect("test", User())


async def test_a_certificate_for_another_name_is_not_trusted(certificates: Certificates) -> None:
    server = await asyncio.start_server(
        lambda reader, writer: writer.close(), "127.0.0.2", 0, ssl=certificates.server_context()
    )
    async with server:
        url = f"amqps://user:secret@127.0.0.2:{server.sockets[0].getsockname()[1]}/"
        with pytest.raises(BrokerError, match="certificate is not trusted"):
            await dial_to(url, tls=TlsFiles(certificates.folder / "ca.pem")).connect("test", User())


async def test_certificate_files_that_cannot_be_read_are_named(tmp_path: Path, certificates: Certificates) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    folder = certificates.folder
    for files, name in (
        (TlsFiles(tmp_path / "missing.pem"), r"broker\.ca_file .*missing\.pem can't be used: No such file"),
        (TlsFiles(None, tmp_path / "missing.pem"), r"broker\.cert_file .*missing\.pem can't be used: No such file"),
        (TlsFiles(garbage), r"broker\.ca_file .*garbage\.pem"),
        (TlsFiles(folder / "ca.pem", garbage), r"broker\.cert_file .*garbage\.pem"),
        (TlsFiles(folder / "ca.pem", folder / "client.pem"), r"broker\.cert_file .*client\.pem"),
    ):
        with pytest.raises(BrokerError, match=name):
            await dial_to("amqps://user:secret@127.0.0.1:1/", tls=files).connect("test", User())


async def test_a_changed_certificate_file_is_read_again(certificates: Certificates, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes((certificates.folder / "ca.pem").read_bytes())
    dial = dial_to("amqps://localhost/", tls=TlsFiles(ca))
    first = dial.ssl_context()
    assert dial.ssl_context() is first
    ca.write_bytes(ca.read_bytes() * 2)
    assert dial.ssl_context() is not first


async def test_limits_are_agreed_on() -> None:
    agreed: list[commands.Connection.TuneOk] = []

    async def script(peer: Peer) -> None:
        agreed.append(await peer.open(commands.Connection.Tune(1, 4096, 60)))
        await peer.closed()

    async with scripted(script) as url:
        link = await opened(url, User(), heartbeat_s=3)
        assert link.frame_max == 4096
        assert (agreed[0].channel_max, agreed[0].frame_max, agreed[0].heartbeat) == (1, 4096, 3)
        await link.close(0.1)

    async def without_limits(peer: Peer) -> None:
        agreed.append(await peer.open(commands.Connection.Tune(0, 0, 0)))
        await peer.closed()

    async with scripted(without_limits) as url:
        link = await opened(url, User())
        assert (agreed[1].frame_max, agreed[1].heartbeat) == (131_072, 5)
        await link.close(0.1)


async def test_frames_too_small_for_amqp_are_refused() -> None:
    async def script(peer: Peer) -> None:
        await peer.open(commands.Connection.Tune(1, 100, 60))

    async with scripted(script) as url:
        with pytest.raises(BrokerError, match="4096 are the least"):
            await opened(url, User())


async def test_the_password_is_sent_and_nothing_else_tells_it() -> None:
    async def script(peer: Peer) -> None:
        start_ok = await peer.start()
        assert start_ok.mechanism == "PLAIN"
        assert start_ok.response == "\0user\0secret"
        assert start_ok.client_properties["capabilities"]["connection.blocked"] is True  # type: ignore[index, call-overload]

    async with scripted(script) as url:
        with pytest.raises(BrokerRefusedError, match="closed the connection during log-in") as refused:
            await opened(url, User())
        assert "secret" not in repr(refused.value)


@pytest.mark.parametrize("mechanisms", ["AMQPLAIN", ""])
async def test_a_broker_without_our_mechanism_is_a_refusal(mechanisms: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.start(mechanisms)

    async with scripted(script) as url:
        with pytest.raises(BrokerRefusedError, match="PLAIN"):
            await opened(url, User())


async def test_a_broker_that_never_answers_is_given_up_in_time() -> None:
    async def script(peer: Peer) -> None:
        await peer.closed()

    async with scripted(script) as url:
        with pytest.raises(BrokerError, match=r"no answer within 0\.2 s"):
            await dial_to(url, connect_timeout_s=0.2).connect("test", User())


@pytest.mark.parametrize("noise", [b"AMQP\x01\x01\x00\x0a", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x01\x00\x00"])
async def test_what_is_no_amqp_broker_is_told(noise: bytes) -> None:
    async def script(peer: Peer) -> None:
        peer.write(noise)
        await asyncio.sleep(0.05)

    async with scripted(script) as url:
        with pytest.raises(BrokerError, match=r"broke the protocol|without a word"):
            await opened(url, User())


async def test_heartbeats_go_out_when_we_are_idle_and_only_then() -> None:
    beats: list[float] = []
    loop = asyncio.get_running_loop()

    async def script(peer: Peer) -> None:
        await peer.open()

        async def keep_alive() -> None:
            while True:
                peer.write(frames.HEARTBEAT)
                await asyncio.sleep(0.2)

        alive = asyncio.create_task(keep_alive())
        try:
            while True:
                await peer.expect(heartbeat.Heartbeat)
                beats.append(loop.time())
        finally:
            alive.cancel()

    async with scripted(script) as url:
        user = User()
        link = await opened(url, user, heartbeat_s=1)
        began = loop.time()
        await eventually(lambda: len(beats) >= 4, 10 * SECOND)
        gaps = [after - before for before, after in zip([began, *beats], beats, strict=False)]
        assert max(gaps) <= 0.8 * SECOND
        assert sum(gaps) / len(gaps) >= 0.3
        assert user.told == []
        await link.close(0.1)


async def test_a_silent_broker_is_lost_after_two_heartbeats_and_not_before() -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        await peer.closed()

    async with scripted(script) as url:
        user = User()
        link = await opened(url, user, heartbeat_s=1)
        began = asyncio.get_running_loop().time()
        assert "two heartbeats" in await ended(link)
        assert 1.7 <= asyncio.get_running_loop().time() - began <= 2.3 * SECOND
        assert len(user.told) == 1


async def test_any_byte_is_life() -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        slow = frames.deliver(b"x" * 100)
        for byte in slow[:25]:
            peer.write(bytes((byte,)))
            await asyncio.sleep(0.1)

    async with scripted(script) as url:
        user = User()
        link = await opened(url, user, heartbeat_s=1)
        assert "without a word" in await ended(link)  # lost by the end of the script, not by silence


async def test_a_stall_of_our_own_loop_costs_no_link_that_is_well() -> None:
    import time

    async def script(peer: Peer) -> None:
        await peer.open()
        while True:
            peer.write(frames.HEARTBEAT)
            await asyncio.sleep(0.2)

    async with scripted(script) as url:
        user = User()
        link = await opened(url, user, heartbeat_s=1)
        time.sleep(3)  # noqa: ASYNC251 - a stall is what is tested (faults A26)
        await asyncio.sleep(0.5)
        assert link.is_up
        await link.close(0.1)


async def test_an_answer_that_does_not_come_costs_the_link() -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        await peer.closed()

    async with scripted(script) as url:
        user = User()
        link = await opened(url, user, rpc_timeout_s=0.1)
        with pytest.raises(BrokerError, match=r"no answer from the broker within 0\.1 s"):
            await call_open(link)
        assert user.told == [("lost", "no answer from the broker within 0.1 s")]
        with pytest.raises(BrokerError, match="no answer"):
            await call_open(link)


async def test_a_channel_closed_instead_of_an_answer_is_told_to_who_waits() -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        await peer.open_channel()
        await peer.expect(commands.Basic.Consume)
        peer.say(commands.Channel.Close(404, "NOT_FOUND - no queue 'x'", 60, 20), channel=1)
        await peer.expect(commands.Channel.CloseOk)
        await peer.open_channel()
        peer.say(commands.Channel.Close(406, "PRECONDITION_FAILED - timeout", 0, 0), channel=1)
        await peer.expect(commands.Channel.CloseOk)
        await peer.closed()

    async with scripted(script) as url:
        user = User()
        link = await opened(url, user)
        await call_open(link)
        with pytest.raises(ChannelClosedError, match="NOT_FOUND") as closed:
            await link.call(1, methods.encode_consume(1, "x", "tag"), methods.BASIC_CONSUME_OK)
        assert closed.value.code == 404
        assert user.told == []
        await call_open(link)
        await eventually(lambda: user.told)
        assert user.told[0][:2] == ("channel_closed", 1)
        assert "406" in str(user.told[0][2])
        assert link.is_up
        await link.close(0.1)


async def test_blocked_flow_and_cancel_reach_the_user() -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        await peer.open_channel()
        peer.say(commands.Connection.Blocked("low on disk"), commands.Connection.Unblocked())
        peer.say(commands.Channel.Flow(False), commands.Basic.Cancel("tag", True), channel=1)
        flow_ok = await peer.expect(commands.Channel.FlowOk)
        assert flow_ok.active is False
        peer.say(commands.Channel.Flow(True), channel=1)
        await peer.expect(commands.Channel.FlowOk)
        await peer.closed()

    async with scripted(script) as url:
        user = User()
        link = await opened(url, user)
        await call_open(link)
        await eventually(lambda: len(user.told) == 5)
        assert user.told == [
            ("blocked", "low on disk"),
            ("blocked", None),
            ("blocked", "channel.flow"),
            ("consumer_canceled", 1),
            ("blocked", None),
        ]
        await link.close(0.1)


async def test_the_brokers_close_is_answered_and_told_with_code_and_text() -> None:
    answered = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.open()
        await peer.open_channel()
        peer.say(commands.Connection.Close(320, "CONNECTION_FORCED - maintenance", 0, 0))
        await peer.expect(commands.Connection.CloseOk)
        answered.set()

    async with scripted(script) as url:
        user = User()
        link = await opened(url, user)
        await call_open(link)
        reason = await ended(link)
        assert "CONNECTION_FORCED - maintenance (320)" in reason
        assert user.told == [("lost", reason)]
        await asyncio.wait_for(answered.wait(), 5 * SECOND)


@pytest.mark.parametrize(
    "frame",
    [
        commands.Basic.GetEmpty(),
        commands.Exchange.DeclareOk(),
    ],
)
async def test_a_method_that_nobody_asked_for_costs_the_link(frame: commands.Basic.GetEmpty) -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        await peer.open_channel()
        peer.say(frame, channel=1)
        await peer.closed()

    async with scripted(script) as url:
        link = await opened(url, User())
        await call_open(link)
        assert "came unasked" in await ended(link)


@pytest.mark.parametrize("raises", ["delivered", "batch_ended", "lost"])
async def test_what_the_user_raises_is_raised_by_ended(raises: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        await peer.open_channel()
        peer.write(frames.deliver(b"x"))
        await asyncio.sleep(0.05)

    async with scripted(script) as url:
        user = User()
        user.raises = raises
        link = await opened(url, user)
        await call_open(link)
        with pytest.raises(RuntimeError, match="a bug"):
            await ended(link)
        assert not link.is_up


async def test_nothing_is_told_after_the_loss() -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        await peer.open_channel()
        close = frames.method(0, commands.Connection.Close(320, "bye", 0, 0))
        peer.write(frames.deliver(b"before") + close + frames.deliver(b"after", tag=2))
        await peer.closed()

    async with scripted(script) as url:
        user = User()
        link = await opened(url, user)
        await call_open(link)
        await ended(link)
        assert [told[0] for told in user.told] == ["delivered", "lost"]


async def test_closing_a_broker_that_does_not_answer_takes_no_longer_than_allowed() -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        await peer.closed()

    async with scripted(script) as url:
        link = await opened(url, User())
        began = asyncio.get_running_loop().time()
        await link.close(0.2)
        assert asyncio.get_running_loop().time() - began < 1.0 * SECOND
        assert not link.is_up


async def test_writes_of_one_turn_go_out_together_and_in_order() -> None:
    received: list[int] = []

    async def script(peer: Peer) -> None:
        await peer.open()
        while len(received) < 1000:
            received.append((await peer.expect(commands.Basic.Ack)).delivery_tag)
        await peer.closed()

    async with scripted(script) as url:
        link = await opened(url, User())
        for tag in range(1000):
            link.write(methods.encode_ack(1, tag))
        assert link.write_buffer_bytes == 1000 * len(methods.encode_ack(1, 1))
        await eventually(lambda: len(received) == 1000)
        assert received == list(range(1000))
        assert link.write_buffer_bytes == 0
        await link.close(0.1)
        link.write(b"nothing")  # a lost link takes no harm
        assert link.write_buffer_bytes == 0
