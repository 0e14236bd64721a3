"""``cancel-worker dead`` on a real broker, and what a worker makes of what was requeued."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from aio_pika.abc import HeadersType

from tests.broker.recorder import Recorder
from tests.cli.conftest import Ended, broker_settings, cli
from tests.cli.test_cancel import working
from tests.cli.test_tail import declared
from tests.support.broker import RPC_S, Broker
from tests.support.events import make_event, publish_event
from tests.support.timing import SECOND, eventually
from worker.broker import dead_letters, methods
from worker.broker.dead_letters import opened
from worker.broker.dial import Dial
from worker.broker.fields import encode_short_string
from worker.config import Broker as Settings
from worker.simulator import Simulator
from worker.wire.event import command_event_id, final_id, unresolved_id

pytestmark = pytest.mark.process


def command(*order_ids: str, **item: str) -> bytes:
    data = [{"Symbol": "BTC-USD", "OrderID": order_id, **item} for order_id in order_ids]
    return msgspec.json.encode({"type": "OrderCancelRequest", "data": data})


MASS = msgspec.json.encode({"type": "OrderMassCancelRequest", "data": [{"MassCancelRequestType": "AllOrders"}]})


async def died(
    broker: Broker,
    body: bytes,
    message_id: str | None,
    *,
    lane: str = "cancel",
    headers: HeadersType | None = None,
    **properties: Any,
) -> None:
    """A command that a worker rejected: it is a dead letter when this returns."""
    queue = broker.name("cancel.kill" if lane == "kill" else "cancel.commands")
    before = await broker.depth(broker.name("cancel.dead"))
    exchange = broker.name("cancel.commands")
    if message_id is None:  # the driver would make one up
        await publish_raw(broker, exchange, lane, body)
    else:
        await broker.publish(exchange, lane, body, message_id=message_id, headers=headers, **properties)
    channel = await broker.channel()
    source = await channel.get_queue(queue, ensure=False)
    message = await eventually(lambda: source.get(fail=False, timeout=RPC_S), 10 * SECOND)
    assert message is not None
    await message.reject(requeue=False)

    async def is_there() -> bool:
        return await broker.depth(broker.name("cancel.dead")) > before

    await eventually(is_there, 10 * SECOND)


async def ids(settings: Mapping[str, str]) -> list[str]:
    ended = await cli("dead", "list", "--json", settings=settings)
    assert (ended.status, ended.err) == (0, "")
    return [json.loads(line)["id"] for line in ended.out.splitlines()]


async def test_looking_shows_all_and_changes_nothing(broker: Broker) -> None:
    async with declared(broker) as settings:
        ended = await cli("dead", "list", settings=settings)
        assert ended == Ended(0, "no dead letters\n", "")
        names = [f"c-{number:02}" for number in range(12)]
        for name in names:
            await broker.publish(broker.name("cancel.dead"), "", command("o-1"), message_id=name)
        for _ in range(2):
            assert await ids(settings) == names
        shown = await cli("dead", "show", "c-05", settings=settings)
        assert (shown.status, shown.err) == (0, "")
        assert '"OrderID":"o-1"' in shown.out
        assert await ids(settings) == names
        few = await cli("dead", "list", "--limit", "2", settings=settings)
        assert "12 dead letters, the oldest 2 are shown" in few.out
        assert await ids(settings) == names


async def test_the_list_says_what_and_why(broker: Broker) -> None:
    user = urlsplit(broker.url).username
    async with declared(broker) as settings:
        await died(broker, command("o-1", "o-2"), "c-1", user_id=user)
        await died(broker, MASS, "m-1", lane="kill")
        await died(broker, b"\xff", None)
        ended = await cli("dead", "list", settings=settings)
        assert (ended.status, ended.err) == (0, "")
        head, one, mass, bad, total = ended.out.splitlines()
        assert head.split() == ["id", "lane", "died", "at", "times", "user", "what"]
        today = datetime.now(UTC).strftime("%Y-")
        assert one.split()[:3] == ["c-1", "cancel", "rejected"]
        assert one.split()[3].startswith(today)
        assert one.split()[4:] == ["1", user, "2", "cancels"]
        assert mass.split()[:3] == ["m-1", "kill", "rejected"]
        assert mass.endswith("mass cancel")
        assert bad.startswith("sha256:")
        assert "invalid: body: no UTF-8" in bad
        assert total == "3 dead letters"


async def test_show_tells_all(broker: Broker) -> None:
    async with declared(broker) as settings:
        body = command("o-1")
        await died(broker, body, "c-1", headers={"reason": "why \x1b[31m", "n": 7}, app_id="risk")
        shown = await cli("dead", "show", "c-1", settings=settings)
        assert (shown.status, shown.err) == (0, "")
        for word in ("c-1", "rejected in", "risk", "1 times", "header n", body.decode()):
            assert word in shown.out
        assert "\x1b" not in shown.out
        found = json.loads((await cli("dead", "show", "c-1", "--json", settings=settings)).out)
        assert (found["id"], found["lane"], found["cancels"], found["mass"]) == ("c-1", "cancel", 1, False)
        assert found["properties"]["headers"]["n"] == 7
        assert found["deaths"][0]["reason"] == "rejected"
        assert (await cli("dead", "show", "c-1", "--body", settings=settings)).out == body.decode()
        packed = msgspec.msgpack.encode(msgspec.json.decode(body))
        await died(broker, packed, "c-2", content_type="application/msgpack")
        assert json.loads(json.loads((await cli("dead", "show", "c-2", "--json", settings=settings)).out)["body"])
        none = await cli("dead", "show", "c-9", settings=settings)
        assert none == Ended(1, "", "cancel-worker: there is no dead letter c-9\n")


async def test_requeued_is_the_untouched_body_under_the_operator_s_user(broker: Broker) -> None:
    user = urlsplit(broker.url).username
    async with declared(broker) as settings:
        body = b'{"type": "OrderCancelRequest",  "data": [{"Symbol": "A", "OrderID": "1", "ClOrdID": "x"}]}'
        at = int(time.time()) - 1000
        headers: HeadersType = {
            "reason": "why", "deadline": datetime(2030, 1, 2, tzinfo=UTC), "n": [1, {"a": None}],
            "original_user": "forged", "CC": ["kill"],
        }  # fmt: skip
        await died(
            broker, body, "c-1", lane="kill", headers=headers, user_id=user, correlation_id="k", reply_to="answers",
            app_id="risk", timestamp_s=at,
        )  # fmt: skip
        await broker.drain(broker.name("cancel.kill"))
        await died(broker, body, None)
        await died(broker, command("o-1"), "kept")
        await died(broker, command("o-1"), "c-1")
        ended = await cli("dead", "requeue", "c-1", "x", settings=settings)
        assert (ended.status, ended.err) == (0, ""), ended.out
        assert ended.out.splitlines()[-1] == "3 requeued, 0 kept"
        assert await ids(settings) == ["kept"]
        [again] = await broker.drain(broker.name("cancel.kill"))
        assert again.body == body
        assert (again.message_id, again.correlation_id, again.reply_to) == ("c-1", "k", "answers")
        assert (again.app_id, again.user_id, again.content_type) == ("risk", user, "application/json")
        assert again.timestamp is not None
        assert again.timestamp.timestamp() == at
        assert again.delivery_mode == 2
        assert {name: value for name, value in again.headers.items() if name != "x-delivery-count"} == {
            "reason": "why",
            "deadline": datetime(2030, 1, 2, tzinfo=UTC),
            "n": [1, {"a": None}],
            "requeue_of": "c-1",
            "original_user": user,
        }
        first, second = await broker.drain(broker.name("cancel.commands"))
        assert (first.message_id, first.headers["requeue_of"]) == ("x", "x")
        assert "original_user" not in first.headers
        assert second.message_id == "c-1"


async def test_who_published_it_first_stays_known(broker: Broker) -> None:
    user = urlsplit(broker.url).username
    async with declared(broker) as settings:
        await died(broker, command("o-1"), "c-1", headers={"requeue_of": "c-1", "original_user": "risk"}, user_id=user)
        assert (await cli("dead", "requeue", "--all", settings=settings)).status == 0
        [again] = await broker.drain(broker.name("cancel.commands"))
        assert again.headers["original_user"] == "risk"


async def test_a_mass_cancel_is_never_requeued_nor_what_is_invalid(broker: Broker) -> None:
    async with declared(broker) as settings:
        await died(broker, MASS, "m-1", lane="kill")
        await died(broker, b"{}", "bad")
        await died(broker, command("o-1"), "c-1")
        ended = await cli("dead", "requeue", "m-1", "bad", settings=settings)
        assert ended.status == 1
        assert "m-1  not requeued: a mass cancel is never requeued" in ended.out
        assert "bad  not requeued: it would be invalid again: type: " in ended.out
        ended = await cli("dead", "requeue", "--all", settings=settings)
        assert (ended.status, ended.out.splitlines()[-1]) == (0, "1 requeued, 2 kept")
        assert await broker.depth(broker.name("cancel.kill")) == 0
        assert await ids(settings) == ["m-1", "bad"]


async def test_what_the_broker_does_not_take_stays(broker: Broker) -> None:
    async with declared(broker) as settings:
        await died(broker, command("o-1"), "c-1")
        await died(broker, command("o-1"), "c-2")
        await broker.delete_queue(broker.name("cancel.commands"))
        ended = await cli("dead", "requeue", "c-1", settings=settings)
        assert (ended.status, ended.err.count("\n")) == (2, 1)
        assert "a binding of exchange" in ended.err
        assert await ids(settings) == ["c-1", "c-2"]


async def test_one_that_came_from_nowhere_needs_a_lane(broker: Broker) -> None:
    async with declared(broker) as settings:
        await broker.publish(broker.name("cancel.dead"), "", command("o-1"), message_id="c-1")
        ended = await cli("dead", "requeue", "c-1", settings=settings)
        assert ended.status == 1
        assert "give --lane" in ended.out
        assert (await cli("dead", "requeue", "c-1", "--lane", "kill", settings=settings)).status == 0
        assert len(await broker.drain(broker.name("cancel.kill"))) == 1


async def test_an_unknown_id_is_told(broker: Broker) -> None:
    async with declared(broker) as settings:
        await died(broker, command("o-1"), "c-1")
        for name in ("unresolved", "requeue"):
            ended = await cli("dead", name, "c-1", "c-9", settings=settings)
            assert (ended.status, ended.err) == (1, "cancel-worker: there is no dead letter c-9\n")
        ended = await cli("dead", "purge", "c-9", "--yes", settings=settings)
        assert (ended.status, ended.err) == (1, "cancel-worker: there is no dead letter c-9\n")


async def test_purge_deletes_what_was_named_and_nothing_else(broker: Broker) -> None:
    async with declared(broker) as settings:
        for name in ("c-1", "c-2", "c-3"):
            await died(broker, command("o-1"), name)
        ended = await cli("dead", "purge", "c-2", settings=settings, given=b"y\n")
        assert ended == Ended(2, "", "cancel-worker: nobody can be asked here: give --yes if you mean it\n")
        ended = await cli("dead", "purge", "c-2", "--yes", settings=settings)
        assert (ended.status, ended.out) == (0, "c-2  deleted\n1 deleted\n")
        assert await ids(settings) == ["c-1", "c-3"]
        assert (await cli("dead", "purge", "--all", "--yes", settings=settings)).status == 0
        assert await ids(settings) == []


async def test_those_without_a_final_get_unresolved_once(broker: Broker) -> None:
    async with declared(broker) as settings:
        at = int(time.time())
        await died(broker, command("o-1", "o-2"), "c-1", timestamp_s=at, headers={"reason": "why"}, app_id="risk")
        await died(broker, command("o-3"), "told", timestamp_s=at)
        await died(broker, command("o-4"), "whole", timestamp_s=at)
        await died(broker, MASS, "m-1", lane="kill", timestamp_s=at)
        await died(broker, b"[]", "bad", timestamp_s=at)
        await publish_event(broker, make_event("c-1", 1, "canceled"))
        await publish_event(broker, make_event("told", 0, "unresolved"))
        sha256 = hashlib.sha256(command("o-4")).hexdigest()
        await publish_event(broker, make_event("whole", None, "unauthorized", sha256=sha256))
        before = await ids(settings)
        ended = await cli("dead", "unresolved", "--all", settings=settings)
        assert (ended.status, ended.err) == (0, "")
        assert ended.out.splitlines()[-1] == "5 dead letters, 3 unresolved published"
        again = await cli("dead", "unresolved", "--all", settings=settings)
        assert again.out == "5 dead letters, 0 unresolved published\n"
        assert await ids(settings) == before
        stored = await broker.read_stream(broker.name("cancel.audit"), 6)
        one, mass, bad = (json.loads(message.body) for message in stored[3:])
        assert one["event_id"] == unresolved_id("c-1", 0)
        assert (one["outcome"], one["final"], one["sent"], one["order_live"]) == ("unresolved", True, "maybe", None)
        assert (one["order_id"], one["symbol"], one["lane"]) == ("o-1", "BTC-USD", "cancel")
        assert (one["reason"], one["app_id"], one["supersedes"]) == ("why", "risk", None)
        assert one["error"]["code"] == "dead_lettered"
        assert one["times"]["enqueued"][:19] == datetime.fromtimestamp(at, UTC).isoformat()[:19]
        assert (mass["event_id"], mass["lane"]) == (unresolved_id("m-1", 0), "kill")
        assert bad["event_id"] == command_event_id("bad", hashlib.sha256(b"[]").hexdigest(), "unresolved")
        assert (bad["index"], bad["symbol"]) == (None, None)
        message = stored[3]
        assert (message.message_id, message.type, message.app_id) == (one["event_id"], "unresolved", "cancel-worker")
        assert (message.headers["command_id"], message.headers["final"]) == ("c-1", True)
        assert message.routing_key == "final.unresolved.BTC-USD"
        assert (await cli("audit", "verify", settings=settings)).status == 0


async def test_letters_that_no_driver_can_read_stop_nothing(broker: Broker) -> None:
    async with declared(broker) as settings:
        dead = broker.name("cancel.dead")
        await publish_raw(broker, dead, "", b"x", b"\xff\xfeab", 1_700_000_000_000_000)
        await publish_raw(broker, dead, "", command("o-1"), b"c-1", 2**64 - 1)
        await died(broker, command("o-1"), "c-2", headers={"a": bytearray(b"\xff")})
        ended = await cli("dead", "list", "--json", settings=settings)
        assert (ended.status, ended.err) == (0, "")
        assert len(ended.out.splitlines()) == 3
        assert (await cli("dead", "requeue", "c-2", settings=settings)).status == 0
        assert (await cli("dead", "requeue", "c-1", "--lane", "cancel", settings=settings)).status == 0
        assert (await cli("dead", "purge", "--all", "--yes", settings=settings)).status == 0
        assert await ids(settings) == []


class _Nobody(Recorder):
    """A user of a link that only publishes."""

    def delivered(self, *_: object) -> None: ...
    def returned(self, *_: object) -> None: ...
    def confirmed(self, *_: object) -> None: ...
    def consumer_canceled(self, *_: object) -> None: ...
    def channel_closed(self, *_: object) -> None: ...
    def blocked(self, *_: object) -> None: ...
    def lost(self, *_: object) -> None: ...


async def publish_raw(
    broker: Broker, exchange: str, key: str, body: bytes, message_id: bytes | None = None, timestamp: int | None = None
) -> None:
    """A message as no driver would publish it: without a message_id, or with one that is no UTF-8."""
    link = await Dial(lambda: [broker.url], name="test").connect("raw", _Nobody())
    await link.call(1, methods.encode_channel_open(1), methods.CHANNEL_OPEN_OK)
    publish = b"\x00\x00" + encode_short_string(exchange) + encode_short_string(key) + b"\x00"
    link.write(methods.encode_method(1, methods.BASIC_PUBLISH, publish))
    flags, properties = 1 << 12, b"\x02"  # delivery mode
    if message_id is not None:
        flags |= 1 << 7
        properties += bytes((len(message_id),)) + message_id
    if timestamp is not None:
        flags |= 1 << 6
        properties += timestamp.to_bytes(8, "big")
    header = b"\x00\x3c\x00\x00" + len(body).to_bytes(8, "big") + flags.to_bytes(2, "big") + properties
    for kind, payload in ((2, header), (3, body)):
        link.write(bytes((kind, 0, 1)) + len(payload).to_bytes(4, "big") + payload + b"\xce")
    await link.close()


async def test_more_than_a_tranche_is_taken_and_put_back_in_order(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "TRANCHE", 3)
    settings = Settings(dead_queue=broker.name("cancel.dead"))
    await broker.declare_queue(settings.dead_queue)
    names = [f"c-{number:02}" for number in range(11)]
    for name in names:
        await broker.publish("", settings.dead_queue, command("o-1"), message_id=name)
    dial = Dial(lambda: [broker.url], name="test")

    async def look(drop: str = "", most: int = 100) -> list[str]:
        found: list[str] = []
        async with opened(dial, settings) as letters, aclosing(letters.take()) as all_held:
            async for held in all_held:
                found.append(held.letter.id)
                if held.letter.id == drop:
                    await letters.drop(held)
                if len(found) == most:
                    break
        return found

    assert await look() == names
    assert await look(most=4) == names[:4]
    assert await look(drop="c-01") == names
    assert await look() == [name for name in names if name != "c-01"]
    with pytest.raises(RuntimeError):
        await broken_off(dial, settings)
    assert sorted(await look()) == [name for name in names if name != "c-01"]


async def broken_off(dial: Dial, settings: Settings) -> None:
    async with opened(dial, settings) as letters:
        async for _ in letters.take():
            raise RuntimeError


async def test_what_the_broker_gave_up_is_found_out_in_the_end(broker: Broker) -> None:
    """Moved by the delivery limit, given its unresolved, requeued, carried out: every step audited."""
    async with Simulator() as venue:
        order = venue.place()
        limits = {"BROKER__DELIVERY_LIMIT": "2", "BROKER__SUSPECT_AFTER": "1"}
        limit = broker_settings(broker) | {f"CANCEL_WORKER__{name}": value for name, value in limits.items()}
        assert (await cli("topology", "--declare", settings=limit)).status == 0
        await broker.publish(broker.name("cancel.commands"), "cancel", command(order.order_id), message_id="c-1")
        channel = await broker.channel()
        queue = await channel.get_queue(broker.name("cancel.commands"), ensure=False)
        for _ in range(3):
            message = await queue.get(timeout=RPC_S)
            assert message is not None
            await message.nack(requeue=True)

        async def is_dead() -> bool:
            return await broker.depth(broker.name("cancel.dead")) == 1

        await eventually(is_dead, 10 * SECOND)
        listed = await cli("dead", "list", settings=limit)
        assert "delivery_limit" in listed.out
        assert (await cli("dead", "unresolved", "--all", settings=limit)).status == 0
        async with working(broker, venue, **limits) as settings:
            assert (await cli("dead", "requeue", "c-1", settings=settings)).status == 0
            ended = await cli(
                "tail", "--since", "5m", "--outcome", "canceled", "--count", "1", "--json", settings=settings
            )
            final = json.loads(ended.out)
            audited = await cli("audit", "verify", settings=settings)
        assert (final["event_id"], final["supersedes"]) == (final_id("c-1", 0), unresolved_id("c-1", 0))
        assert (audited.status, audited.err) == (0, ""), audited.out
        assert venue.truth()[order.order_id].status == "Canceled"


async def test_a_topology_that_is_not_there_is_exit_status_2(broker: Broker) -> None:
    settings = broker_settings(broker)
    for arguments in (["list"], ["show", "x"], ["requeue", "x"], ["purge", "x", "--yes"], ["unresolved", "--all"]):
        ended = await cli("dead", *arguments, settings=settings)
        assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
        assert f"queue {broker.name('cancel.dead')} is missing" in ended.err


WRONG = {
    "nothing": [],
    "no id": ["show"],
    "no letters": ["requeue"],
    "ids and all": ["requeue", "--all", "x"],
    "purge of none": ["purge", "--yes"],
    "unresolved of none": ["unresolved"],
    "a lane that is none": ["requeue", "x", "--lane", "fast"],
    "two forms": ["show", "x", "--json", "--body"],
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG)
def test_what_makes_no_sense_is_a_usage_error(arguments: list[str], here: Callable[..., Ended]) -> None:
    status, out, err = here("dead", *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("cancel-worker: ")
