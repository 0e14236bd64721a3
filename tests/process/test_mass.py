"""Mass cancels by a real worker: killed in mid-sweep, against a venue that obeys in part, and held up by nothing."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.process.harness import COMMANDS, RESULTS, Seen, Stage, cancel_of
from tests.support.timing import SECOND, eventually
from worker.simulator import Behaviour, Script, Streams
from worker.wire import event as wire

FINAL_IDS = (wire.final_id, wire.unresolved_id)
KINDS = ("canceled", "already_closed", "rejected", "unknown", "unsent")


async def fire(stage: Stage, command_id: str = "mass", *, within_s: float | None = None, **scope: object) -> None:
    """Publish a mass cancel, over everything unless ``scope`` says otherwise."""
    headers = {}
    if within_s is not None:
        headers["deadline"] = (datetime.now(UTC) + timedelta(seconds=within_s)).isoformat()
    await stage.publish(
        [{"MassCancelRequestType": "AllOrders", **scope}],
        command_id=command_id,
        lane="kill",
        envelope={"type": "OrderMassCancelRequest"},
        counted=False,
        headers=headers,
        timestamp_s=int(time.time()),
    )


async def report_of(stage: Stage, command_id: str = "mass", within_s: float = 60 * SECOND) -> Seen:
    """The one report of a mass cancel, once it is there and the command is settled."""

    def there() -> list[Seen]:
        return [e for e in stage.events.of(command_id, 0) if e.final]

    try:
        await eventually(there, within_s)
    except AssertionError:
        raise AssertionError(f"no report: {Counter(e.outcome for e in stage.events.seen)}") from None
    await stage.empty()
    assert {e.event_id for e in there()} == {wire.final_id(command_id, 0)}
    return there()[0]


def check_ledger(report: Seen) -> dict[str, Any]:
    """The ledger, whose counts add up."""
    mass: dict[str, Any] = report.body["mass"]
    assert mass["matched"] == sum(mass[kind] for kind in KINDS), mass
    assert len(set(mass["remaining"])) == len(mass["remaining"])
    return mass


def check_orders(stage: Stage, orders: Iterable[str], command_id: str = "mass") -> dict[str, Seen]:
    """Every order has one final by id, which tells what the venue's own book says; repeats tell the same."""
    told: dict[str, list[Seen]] = defaultdict(list)
    for event in stage.events.of(command_id):
        if event.final and event.body["index"]:
            told[event.body["order_id"]].append(event)
    truth = stage.venue.truth()
    missing = [order_id for order_id in orders if order_id not in told]
    assert not missing, f"{len(missing)} orders have no final, such as {truth[missing[0]]}"
    for order_id, events in told.items():
        one, stands = events[0], truth[order_id]
        for event in events:
            assert event.event_id in [make_id(command_id, f"order {order_id}") for make_id in FINAL_IDS]
            for field in ("outcome", "order_live", "order", "report"):
                assert event.body[field] == one.body[field], (field, [e.body for e in events])
        if one.outcome == "canceled":
            ours = {seen.cl_ord_id for seen in stage.venue.sends_of(order_id)}
            assert stands.status == "Canceled" and stands.canceled_by in ours, (one.body, stands)
        elif one.outcome == "already_closed":
            assert not stands.open, (one.body, stands)
        else:
            assert stands.open, (one.body, stands)
    return {order_id: events[0] for order_id, events in told.items()}


@pytest.mark.parametrize("arrived", [1, 400, 1999])
async def test_sigkill_in_the_middle_of_a_sweep_of_2000(stage: Stage, arrived: int) -> None:
    """One report, and its ledger counts what the venue canceled while no worker ran."""
    await stage.open(Script(behaviour=Behaviour(pending=False, delay=0.05, jitter=1.5)))
    orders = stage.place(2000, age=60)
    worker = await stage.start(kill__rate_limit=4000.0)
    await fire(stage)
    await stage.venue.until(lambda: len(stage.venue.cancels) >= arrived, 20 * SECOND)
    await worker.kill()
    before = len(check_told(stage))
    sent = {seen.order_id for seen in stage.venue.cancels}

    def all_closed() -> bool:
        truth = stage.venue.truth()
        return not any(truth[order_id].open for order_id in sent if order_id is not None)

    await eventually(all_closed, 10 * SECOND)
    assert before < len(sent), "some closed while no worker ran"
    await stage.start()
    report = await report_of(stage)
    assert (report.outcome, report.body["order_live"], report.body["sent"]) == ("mass_canceled", False, "yes")
    mass = check_ledger(report)
    assert (mass["matched"], mass["canceled"], mass["remaining"], mass["restarted"]) == (2000, 2000, [], True)
    assert {e.outcome for e in check_orders(stage, orders).values()} == {"canceled"}
    assert max(stage.sends().values()) == 1, "what had been canceled is not canceled again"
    await stage.end_all()
    stored = {event.event_id for event in await stage.audited()}
    assert {wire.final_id("mass", f"order {order_id}") for order_id in orders} <= stored


def check_told(stage: Stage) -> set[str]:
    """Orders whose final was seen."""
    return {e.body["order_id"] for e in stage.events.of("mass") if e.final and e.body["index"]}


async def test_killed_three_times_in_one_mass_cancel(stage: Stage) -> None:
    await stage.open(Script(behaviour=Behaviour(pending=False, delay=0.05, jitter=1.0)))
    orders = stage.place(900)
    await stage.declare()
    await fire(stage)
    for share in (100, 350, 600):
        worker = stage.worker(kill__rate_limit=400.0)
        worker.spawn()
        await stage.venue.until(lambda: len(stage.venue.cancels) >= share, 30 * SECOND)  # noqa: B023
        await worker.kill()
    await stage.start()
    report = await report_of(stage)
    mass = check_ledger(report)
    assert (report.outcome, mass["matched"], mass["canceled"]) == ("mass_canceled", 900, 900)
    check_orders(stage, orders)
    stage.check_no_blind_resend()
    await stage.end_all()


async def test_a_venue_that_obeys_in_part_while_new_orders_appear(stage: Stage) -> None:
    """60 % canceled, 20 % too late, 10 % rejected, 10 % silent: one report, counts add up, survivors named."""
    await stage.open()
    canceled = stage.place(120, behaviour=Behaviour(gap=0.01, jitter=0.05))
    late = stage.place(40, behaviour=Behaviour(play="closed", gap=0.02))
    rejected = stage.place(20, behaviour=Behaviour(play="reject", reason=2, text="market is closed"))
    silent = stage.place(20, behaviour=Behaviour(play="ignore"))
    worker = await stage.start(venue__report_timeout=0.5)
    await fire(stage, within_s=5 * SECOND)
    appearing = [stage.venue.place_later(0.1 * n, behaviour=Behaviour(pending=False)) for n in range(10)]
    report = await report_of(stage)
    assert report.outcome == "mass_incomplete"
    assert report.body["error"]["code"] in ("survivors", "deadline")
    mass = check_ledger(report)
    assert set(mass["remaining"]) == {*rejected, *silent}
    expected = {"canceled": 130, "already_closed": 40, "rejected": 20, "unknown": 20, "unsent": 0}
    assert {kind: mass[kind] for kind in KINDS} == expected
    finals = check_orders(stage, [*canceled, *late, *rejected, *silent, *appearing])
    assert {finals[o].outcome for o in rejected} == {"cancel_rejected"}
    assert {finals[o].outcome for o in silent} == {"unresolved"}
    assert all(finals[o].body["order_live"] is True for o in (*rejected, *silent))
    refusals = [e for e in stage.events.named("report") if e.body["order_id"] == rejected[0]]
    assert refusals, "a reject while sweeps go on is a report"
    (letter,) = await stage.dead_letters(1)
    assert letter.message_id == "mass"
    progress = stage.events.named("mass_progress")
    assert all(e.body["mass"]["matched"] == sum(e.body["mass"][kind] for kind in KINDS) for e in progress)
    assert await worker.terminate() == 0


async def test_orders_older_than_the_worker_are_swept_before_the_venue_has_listed_anything(stage: Stage) -> None:
    """From the worker's own book, and only then is the list asked for: on one session it would be in the way."""
    await stage.open(Script(streams=Streams(snapshot_delay=2.0)))
    stage.place(300, age=3600)
    worker = await stage.start(venue__sessions=1, venue__snapshot_timeout=20.0)
    await eventually(lambda: worker.log_events("open_orders_read"), 20 * SECOND)
    await fire(stage)
    await stage.venue.until(lambda: len(stage.venue.cancels) == 300, 10 * SECOND)

    def asked() -> list[float]:
        return [frame.at for frame in stage.venue.received if frame.type == "subscribe" and b'"Order"' in frame.data]

    await stage.venue.until(lambda: len(asked()) == 2, 10 * SECOND)
    assert asked()[0] < stage.venue.cancels[0].at <= stage.venue.cancels[-1].at <= asked()[1]
    assert {seen.batch for seen in stage.venue.cancels} == {20}
    report = await report_of(stage)
    assert check_ledger(report)["canceled"] == 300
    await stage.end_all()


async def test_a_venue_that_lists_nothing_is_never_flat(stage: Stage) -> None:
    await stage.open(Script(streams=Streams(snapshot="never")))
    stage.place(3)
    await stage.start(venue__snapshot_timeout=0.3)
    await fire(stage, within_s=3 * SECOND)
    report = await report_of(stage)
    assert (report.outcome, report.body["error"]["code"]) == ("mass_incomplete", "not_proven")
    await stage.dead_letters(1)


async def test_two_mass_cancels_at_once_send_one_cancel_per_order(stage: Stage) -> None:
    await stage.open(Script(behaviour=Behaviour(gap=0.1, jitter=0.2)))
    orders = stage.place(200)
    await stage.start()
    await fire(stage, "one")
    await fire(stage, "two")
    for command_id in ("one", "two"):
        report = await report_of(stage, command_id)
        assert report.outcome == "mass_canceled"
        check_ledger(report)
    assert max(stage.sends().values()) == 1
    check_orders(stage, orders, "one")
    await stage.end_all()


async def test_what_waits_in_the_normal_lane_is_overtaken(stage: Stage) -> None:
    """200 single cancels wait for their rate; the mass cancel sends for all of their orders at once."""
    await stage.open(Script(behaviour=Behaviour(pending=False)))
    orders = stage.place(200)
    await stage.start(venue__rate_limit=5.0)
    commands = await stage.publish_each(orders)
    await stage.venue.until(lambda: len(stage.venue.cancels) >= 5)
    began = time.monotonic()
    await fire(stage)
    report = await report_of(stage)
    assert time.monotonic() - began < 10 * SECOND, "200 at 5 a second take 40 s"
    assert report.outcome == "mass_canceled"
    await stage.settled()
    singles = {e.outcome for command_id in commands for e in stage.events.of(command_id) if e.final}
    assert singles == {"canceled", "already_closed"}
    assert sum(stage.sends().values()) < 230, "what is closed is not sent when its turn comes"
    await stage.end_all()


async def kill_delay(stage: Stage, count: int = 20) -> float:
    """Seconds from the publish of a single kill cancel to its frame at the venue, the median of some."""
    waits = []
    for order_id in stage.place(count):
        began = time.monotonic()
        await stage.publish([cancel_of(order_id)], lane="kill")
        await stage.venue.until(lambda: stage.venue.sends_of(order_id), 10 * SECOND)  # noqa: B023
        waits.append(stage.venue.sends_of(order_id)[0].at - began)
    return sorted(waits)[count // 2]


FRAME_S = 0.05 * SECOND
"""Generous for one frame's time on a busy machine; what is tested for would hold a kill cancel up for seconds."""


async def check_not_held_up(stage: Stage, alone_s: float) -> None:
    """A kill cancel goes out within one frame's time of what it took alone, which was no long time either."""
    assert alone_s < 4 * FRAME_S
    assert await kill_delay(stage) < alone_s + FRAME_S


async def test_a_poisoned_normal_lane_holds_no_kill_cancel_up(stage: Stage) -> None:
    """Commands that can't be read and spoilt items, of which a full queue refuses the finals: the lane stays full."""
    await stage.open(Script(behaviour=Behaviour(pending=False)))
    worker = await stage.start(broker__prefetch=100)
    alone = await kill_delay(stage)
    await stage.broker.declare_queue(
        "full", bind=[(RESULTS, "final.invalid.#")], arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
    )
    for n in range(500):
        await stage.publish_body(b"{" * (n + 1), message_id=f"poison-{n}")
        if n % 50 == 0:
            await stage.publish([{"Symbol": "", "OrderID": "x"}] * 200 + [{"Symbol": "BTC-USD"}], counted=False)
    await eventually(lambda: worker.log_events("event_refused"))
    await check_not_held_up(stage, alone)
    assert await stage.broker.depth(COMMANDS) >= 300, "the poison was there all the time"


async def test_a_blocked_normal_result_queue_holds_no_kill_cancel_up(stage: Stage) -> None:
    """A foreign queue that refuses every event of the normal lane: its finals wait, the kill lane's do not."""
    await stage.open(Script(behaviour=Behaviour(pending=False)))
    await stage.start(broker__max_inflight=50)
    alone = await kill_delay(stage)
    await stage.broker.declare_queue(
        "full", bind=[(RESULTS, "*.*.ETH-USD")], arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
    )
    blocked = stage.place(300, symbol="ETH-USD")
    for order_id in blocked:
        await stage.publish([cancel_of(order_id, Symbol="ETH-USD")])
    await eventually(lambda: len(stage.venue.cancels) >= 60)
    await check_not_held_up(stage, alone)


async def test_a_saturated_rate_limit_holds_no_kill_cancel_up(stage: Stage) -> None:
    await stage.open(Script(behaviour=Behaviour(pending=False)))
    await stage.start(venue__rate_limit=1.0)
    alone = await kill_delay(stage)
    await stage.publish_each(stage.place(200))
    await eventually(lambda: len(stage.venue.cancels) > 20)
    await check_not_held_up(stage, alone)


async def test_a_session_lost_while_flat_is_proven_proves_nothing(stage: Stage) -> None:
    """The list on the lost session is begun anew on another, and what opened meanwhile is found."""
    await stage.open(Script(streams=Streams(page_size=5)))
    stage.place(40)
    worker = await stage.start(venue__sessions=2)
    await fire(stage)
    await stage.venue.until(lambda: len(stage.venue.cancels) >= 40)
    stage.venue.cut()
    hidden = stage.place(1)
    report = await report_of(stage)
    assert report.outcome == "mass_canceled"
    assert stage.venue.truth()[hidden[0]].status == "Canceled"
    assert await worker.terminate() == 0
