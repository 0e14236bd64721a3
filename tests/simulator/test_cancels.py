"""OrderCancelRequest: protocol sections 3.8, 5.4, and every line of sections 6 and 7."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.simulator.client import Client, item, ready, utc_now
from tests.simulator.conftest import Open
from worker.simulator import Behaviour, CancelItem, Cancels, Login, Order, Rule, Simulator, Streams, Weighted
from worker.simulator.wire import CXL_REJ_WORDS

Y, OTHER = "the-cancels-own-id", "another-cancel"
Line = tuple[str, str, str]
"""ExecType, OrdStatus, and whose ClOrdID: Y the cancel's, X the order's, Z a stranger's."""


def line(report: dict[str, Any], order: Order, own_id: str = "ord-1") -> Line:
    whose = {Y: "Y", own_id: "X"}.get(report["ClOrdID"], "Z")
    return report["ExecType"], report["OrdStatus"], whose


PENDING = ("PendingCancel", "PendingCancel", "Y")
CANCELED = ("Canceled", "Canceled", "Y")

LIFECYCLES: list[tuple[str, Behaviour, list[Line], str]] = [
    ("accepted", Behaviour(), [PENDING, CANCELED], "Canceled"),
    ("accepted at once", Behaviour(pending=False), [CANCELED], "Canceled"),
    ("partial fills during the cancel", Behaviour(play="partial_fill"), [
        ("Trade", "PartiallyFilled", "X"), PENDING, ("Trade", "PendingCancel", "X"), CANCELED], "Canceled"),
    ("fills under the last request's id", Behaviour(play="partial_fill", fill_id="cancel"), [
        ("Trade", "PartiallyFilled", "X"), PENDING, ("Trade", "PendingCancel", "Y"), CANCELED], "Canceled"),
    ("fill wins", Behaviour(play="fill_wins"), [
        PENDING, ("Trade", "PendingCancel", "X"), ("CancelRejected", "Filled", "Y")], "Filled"),
    ("fill wins, no PendingCancel", Behaviour(play="fill_wins", pending=False), [
        ("Trade", "Filled", "X"), ("CancelRejected", "Filled", "Y")], "Filled"),
    ("fill wins under Y", Behaviour(play="fill_wins", fill_id="cancel"), [
        PENDING, ("Trade", "PendingCancel", "Y"), ("CancelRejected", "Filled", "Y")], "Filled"),
    ("fill wins, no reject follows", Behaviour(play="fill_only", pending=False), [("Trade", "Filled", "X")], "Filled"),
    ("refused", Behaviour(play="reject", reason=2), [("CancelRejected", "New", "Y")], "New"),
    ("refused after PendingCancel", Behaviour(play="reject", pending=True), [
        PENDING, ("CancelRejected", "New", "Y")], "New"),
    ("refused, status overridden", Behaviour(play="reject", status="Canceled"), [
        ("CancelRejected", "Canceled", "Y")], "New"),
    ("refused as a message", Behaviour(play="message_reject"), [("Rejected", "Rejected", "Y")], "New"),
    ("unknown", Behaviour(play="unknown"), [("CancelRejected", "Rejected", "Y")], "New"),
    ("filled before", Behaviour(play="closed"), [
        ("Trade", "Filled", "X"),
        ("CancelRejected", "Filled", "Y")], "Filled"),
    ("expired before", Behaviour(play="closed", closed_by="Expired"), [
        ("Expired", "Expired", "X"), ("CancelRejected", "Expired", "Y")], "Expired"),
    ("done for the day", Behaviour(play="closed", closed_by="DoneForDay"), [
        ("DoneForDay", "DoneForDay", "X"), ("CancelRejected", "DoneForDay", "Y")], "DoneForDay"),
    ("another hand", Behaviour(play="canceled_by_other"), [
        ("Canceled", "Canceled", "Z"), ("CancelRejected", "Canceled", "Y")], "Canceled"),
    ("another hand while ours is pending", Behaviour(play="canceled_by_other", pending=True), [
        PENDING, ("Canceled", "Canceled", "Z"), ("CancelRejected", "Canceled", "Y")], "Canceled"),
    ("replace running, replaced", Behaviour(play="replace_running"), [
        ("PendingReplace", "PendingReplace", "Z"), ("CancelRejected", "PendingReplace", "Y"),
        ("Replaced", "New", "Z")], "New"),
    ("replace running, refused", Behaviour(play="replace_running", ends="ReplaceRejected"), [
        ("PendingReplace", "PendingReplace", "Z"), ("CancelRejected", "PendingReplace", "Y"),
        ("ReplaceRejected", "New", "Z")], "New"),
    ("replace running, filled", Behaviour(play="replace_running", ends="Fill"), [
        ("PendingReplace", "PendingReplace", "Z"), ("CancelRejected", "PendingReplace", "Y"),
        ("Trade", "PendingReplace", "X")], "PendingReplace"),
    ("replace running, canceled", Behaviour(play="replace_running", ends="CanceledByOther"), [
        ("PendingReplace", "PendingReplace", "Z"), ("CancelRejected", "PendingReplace", "Y"),
        ("Canceled", "Canceled", "Z")], "Canceled"),
    ("cancel running", Behaviour(play="cancel_running"), [
        ("PendingCancel", "PendingCancel", "Z"), ("CancelRejected", "PendingCancel", "Y"),
        ("Canceled", "Canceled", "Z")], "Canceled"),
    ("pending for ever", Behaviour(play="pending"), [PENDING], "PendingCancel"),
    ("never processed", Behaviour(play="ignore"), [], "New"),
    ("unknown words", Behaviour(steps=("Suspended", "PendingCancel", "Mystery", "Canceled")), [
        ("Suspended", "New", "X"), PENDING, ("Mystery", "PendingCancel", "Y"), CANCELED], "Canceled"),
    ("canceled twice over", Behaviour(steps=("Fill", "Canceled")), [
        ("Trade", "Filled", "X"), ("CancelRejected", "Filled", "Y")], "Filled"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "behaviour", "lines", "status"), LIFECYCLES, ids=[row[0] for row in LIFECYCLES])
async def test_lifecycles(open_venue: Open, name: str, behaviour: Behaviour, lines: list[Line], status: str) -> None:
    venue = await open_venue()
    order = venue.place(cl_ord_id="ord-1", qty="1", behaviour=behaviour)
    async with ready(venue) as client:
        await client.following()
        await client.cancel(item(Y, order.order_id))
        reports = await client.reports(len(lines))
        assert [line(report, order) for report in reports] == lines
        await client.quiet(0.08)
        assert venue.truth()[order.order_id].status == status
        assert len({report["ExecID"] for report in reports}) == len(reports)
        # The replay tells the same story.
        await client.following()
        assert client.seen[-1]["data"][1:] == reports


async def cancelled(venue: Simulator, client: Client, *items: dict[str, str], reports: int) -> list[dict[str, Any]]:
    """Follows the reports if nobody did yet, sends the cancels, reads so many reports."""
    if all(frame["type"] != "ExecutionReport" for frame in client.seen):
        await client.following()
    await client.cancel(*items)
    return await client.reports(reports)


async def test_a_cancel_that_succeeds_carries_its_own_id_and_the_orders(open_venue: Open) -> None:
    venue = await open_venue(behaviour=Behaviour(play="partial_fill", part=0.4))
    order = venue.place(qty="1")
    async with ready(venue) as client:
        found = await cancelled(venue, client, item(Y, order.order_id), reports=4)
    done = found[-1]
    assert (done["OrigClOrdID"], done["OrderID"]) == (order.cl_ord_id, order.order_id)
    assert (done["CumQty"], done["LeavesQty"], done["AvgPx"]) == ("0.64000000", "0", "61250.00")
    assert [r["LastQty"] for r in found if r["ExecType"] == "Trade"] == ["0.40000000", "0.24000000"]
    truth = venue.truth()[order.order_id]
    assert (truth.canceled_by, truth.answers, truth.open) == (Y, {Y: "Canceled"}, False)


async def test_leaves_may_tell_what_was_open_at_the_cancel(open_venue: Open) -> None:
    venue = await open_venue(cancels=Cancels(leaves_on_close="open"))
    order = venue.place(qty="1")
    venue.fill(order, "0.25")
    async with ready(venue) as client:
        found = await cancelled(venue, client, item(Y, order.order_id), reports=2)
    assert (found[-1]["ExecType"], found[-1]["LeavesQty"]) == ("Canceled", "0.75")


@pytest.mark.parametrize("code", sorted(CXL_REJ_WORDS))
async def test_reasons_as_code_text_or_word(open_venue: Open, code: int) -> None:
    venue = await open_venue()
    for form, shown in (("code", code), ("text", str(code)), ("word", CXL_REJ_WORDS[code])):
        order = venue.place(behaviour=Behaviour(play="reject", reason=code, reason_form=form, text="why"))  # type: ignore[arg-type]
        async with ready(venue) as client:
            found = await cancelled(venue, client, item(f"{Y}-{form}", order.order_id), reports=1)
            assert (found[0]["CxlRejReason"], found[0]["Text"]) == (shown, "why")


@pytest.mark.parametrize(("form", "shown"), [("NONE", "NONE"), ("empty", ""), ("sent", "no-such")])
async def test_an_unknown_order_in_each_form(open_venue: Open, form: Any, shown: str) -> None:
    venue = await open_venue(cancels=Cancels(unknown_id=form))
    async with ready(venue) as client:
        found = (await cancelled(venue, client, item(Y, "no-such"), reports=1))[0]
    assert (found["OrderID"], found["ClOrdID"], found["OrdStatus"], found["CxlRejReason"]) == (shown, Y, "Rejected", 1)
    assert [seen.fate for seen in venue.sends_of("no-such")] == ["unknown"]


async def test_elements_are_answered_each_by_its_own_id(open_venue: Open) -> None:
    venue = await open_venue()
    slow = venue.place(behaviour=Behaviour(delay=0.02, gap=0.04))
    fast = venue.place(behaviour=Behaviour(pending=False))
    refused = venue.place(behaviour=Behaviour(play="reject", delay=0.04))
    async with ready(venue) as client:
        orders = (slow, fast, refused)
        items = [item(f"y{number}", order.order_id) for number, order in enumerate(orders)]
        found = await cancelled(venue, client, *items, reports=4)
    assert [(r["ExecType"], r["ClOrdID"]) for r in found] == [
        ("Canceled", "y1"), ("PendingCancel", "y0"), ("CancelRejected", "y2"), ("Canceled", "y0")]  # fmt: skip
    assert [(seen.index, seen.batch, seen.fate) for seen in venue.cancels] == [(n, 3, "processed") for n in range(3)]


async def test_an_order_is_found_by_its_client_id_and_order_id_wins(open_venue: Open) -> None:
    venue = await open_venue(behaviour=Behaviour(pending=False))
    one, two = venue.place(), venue.place()
    async with ready(venue) as client:
        found = await cancelled(venue, client, item("y1", orig=one.cl_ord_id), reports=1)
        assert (found[0]["OrderID"], found[0]["ExecType"]) == (one.order_id, "Canceled")
        found = await cancelled(venue, client, item("y2", two.order_id, orig=one.cl_ord_id), reports=1)
        assert (found[0]["OrderID"], found[0]["ExecType"]) == (two.order_id, "Canceled")
        # A blank at the end is part of the id.
        found = await cancelled(venue, client, item("y3", orig=two.cl_ord_id + " "), reports=1)
        assert found[0]["CxlRejReason"] == 1
        assert [seen.cl_ord_id for seen in venue.sends_of(one.order_id)] == ["y1", "y2"]


async def test_after_a_replace_the_old_client_id_names_nothing(open_venue: Open) -> None:
    venue = await open_venue(behaviour=Behaviour(pending=False))
    order = venue.place(cl_ord_id="old")
    venue.happen(order, "PendingReplace")
    venue.happen(order, "Replaced")
    async with ready(venue) as client:
        found = await cancelled(venue, client, item("y1", orig="old"), reports=1)
        assert found[0]["CxlRejReason"] == 1
        found = await cancelled(venue, client, item("y2", orig=order.cl_ord_id), reports=1)
        assert found[0]["ExecType"] == "Canceled"


async def test_another_symbol_finds_no_order(open_venue: Open) -> None:
    venue = await open_venue()
    order = venue.place(symbol="BTC-USD")
    async with ready(venue) as client:
        found = await cancelled(venue, client, item(Y, order.order_id, symbol="ETH-USD"), reports=1)
    assert (found[0]["CxlRejReason"], venue.truth()[order.order_id].status) == (1, "New")


async def test_a_second_cancel_meets_the_state_the_first_left(open_venue: Open) -> None:
    venue = await open_venue()
    done = venue.place()
    stuck = venue.place(behaviour=Behaviour(play="pending"))
    forced = venue.place(behaviour=(Behaviour(play="pending"), Behaviour(force=True, pending=False)))
    async with ready(venue) as client:
        await client.following()
        for order, first, second in ((done, 2, (0, "Canceled")), (stuck, 1, (3, "PendingCancel"))):
            await client.cancel(item(f"a{order.order_id[:8]}", order.order_id))
            await client.reports(first)
            await client.cancel(item(f"b{order.order_id[:8]}", order.order_id))
            report = (await client.reports(1))[0]
            assert (report["ExecType"], report["CxlRejReason"], report["OrdStatus"]) == ("CancelRejected", *second)
        await client.cancel(item("f1", forced.order_id), item("f2", forced.order_id))
        assert [r["ExecType"] for r in await client.reports(2)] == ["PendingCancel", "Canceled"]


async def test_a_cancel_id_counts_once_over_orders_and_cancels(open_venue: Open) -> None:
    venue = await open_venue()
    order, other = venue.place(), venue.place()
    async with ready(venue) as client:
        await cancelled(venue, client, item(Y, order.order_id), reports=2)
        found = await cancelled(venue, client, item(Y, other.order_id), reports=1)
        assert (found[0]["CxlRejReason"], found[0]["OrdStatus"], found[0]["OrderID"]) == (6, "New", other.order_id)
        found = await cancelled(venue, client, item(order.cl_ord_id, other.order_id), reports=1)
        assert found[0]["CxlRejReason"] == 6
    assert [seen.fate for seen in venue.cancels] == ["processed", "duplicate", "duplicate"]
    assert venue.truth()[other.order_id].open


async def test_a_duplicate_may_be_swallowed(open_venue: Open) -> None:
    venue = await open_venue(cancels=Cancels(duplicate_id="swallow"))
    order = venue.place()
    async with ready(venue) as client:
        await cancelled(venue, client, item(Y, order.order_id), item(Y, order.order_id), reports=2)
        await client.quiet()


async def test_what_was_ignored_has_used_no_id(open_venue: Open) -> None:
    venue = await open_venue()
    order = venue.place(behaviour=(Behaviour(play="ignore"), Behaviour(pending=False)))
    async with ready(venue) as client:
        await client.following()
        await client.cancel(item(Y, order.order_id))
        await client.cancel(item(Y, order.order_id))
        assert [r["ExecType"] for r in await client.reports(1)] == ["Canceled"]
    assert [seen.fate for seen in venue.sends_of(order.order_id)] == ["ignored", "processed"]


FAULTY: list[tuple[str, dict[str, object]]] = [
    ("no Symbol", {"Symbol": None}), ("empty Symbol", {"Symbol": ""}), ("no ClOrdID", {"ClOrdID": None}),
    ("long ClOrdID", {"ClOrdID": "y" * 37}), ("no target", {"OrderID": None}), ("number", {"OrderID": 7}),
    ("no TransactTime", {"TransactTime": None}), ("misspelt", {"TransactTime": None, "TransacTime": utc_now()}),
    ("local time", {"TransactTime": "2026-03-09T14:09:12+01:00"}), ("bad Timestamp", {"Timestamp": 5}),
]  # fmt: skip


@pytest.mark.parametrize("change", [row[1] for row in FAULTY], ids=[row[0] for row in FAULTY])
@pytest.mark.parametrize("way", ["error", "reject", "drop"])
async def test_a_faulty_element(open_venue: Open, way: Any, change: dict[str, object]) -> None:
    venue = await open_venue(cancels=Cancels(bad_element=way), behaviour=Behaviour(pending=False))
    order, good = venue.place(), venue.place()
    element = {key: value for key, value in {**item(Y, order.order_id), **change}.items() if value is not None}
    async with ready(venue) as client:
        await client.following()
        reqid = await client.send("OrderCancelRequest", data=[element, item("good", good.order_id)])
        if way == "error":
            frame = await client.frame()
            assert (frame["type"], frame["reqid"], frame["error"]["code"]) == ("error", reqid, 1)
        elif way == "reject":
            kinds = [(r["ExecType"], r["ClOrdID"]) for r in await client.reports(2)]
            assert kinds == [("CancelRejected", element.get("ClOrdID", "")), ("Canceled", "good")]
        else:
            assert [r["ClOrdID"] for r in await client.reports(1)] == ["good"]
        await client.quiet(0.03)
    assert venue.truth()[order.order_id].open
    assert venue.truth()[good.order_id].open is (way == "error")


@pytest.mark.parametrize("data", [None, [], {}, "x"])
async def test_a_frame_without_cancels_is_an_error(open_venue: Open, data: object) -> None:
    venue = await open_venue()
    async with ready(venue) as client:
        reqid = await client.send("OrderCancelRequest", **({} if data is None else {"data": data}))
        frame = await client.frame()
        assert (frame["type"], frame["reqid"], frame["error"]["code"]) == ("error", reqid, 1)


async def test_an_element_can_sink_its_whole_frame_and_is_refused_alone_too(open_venue: Open) -> None:
    venue = await open_venue(behaviour=Behaviour(pending=False))
    bad = venue.place(behaviour=Behaviour(play="error", code=7, msg="no"))
    good = venue.place()
    async with ready(venue) as client:
        await client.following()
        reqid = await client.cancel(item("y1", good.order_id), item("y2", bad.order_id))
        frame = await client.frame()
        assert (frame["type"], frame["reqid"], frame["error"]) == ("error", reqid, {"code": 7, "msg": "no"})
        await client.cancel(item("y1", good.order_id))
        assert (await client.reports(1))[0]["ExecType"] == "Canceled"  # its id was not used up
        await client.cancel(item("y2", bad.order_id))
        assert (await client.frame())["type"] == "error"
    assert [seen.fate for seen in venue.cancels] == ["refused", "refused", "processed", "refused"]
    assert venue.truth()[bad.order_id].open


async def test_an_error_may_not_say_which_frame_it_means(open_venue: Open) -> None:
    venue = await open_venue(behaviour=Behaviour(play="error", error_reqid="absent"))
    async with ready(venue) as client:
        await client.cancel(item(Y, "o"))
        frame = await client.frame()
        assert "reqid" not in frame
        assert frame["type"] == "error"


async def test_frames_over_the_batch_limit_are_refused(open_venue: Open) -> None:
    venue = await open_venue(cancels=Cancels(max_batch=2, max_batch_code=9))
    orders = [venue.place() for _ in range(3)]
    async with ready(venue) as client:
        await client.cancel(*(item(f"y{n}", order.order_id) for n, order in enumerate(orders)))
        assert (await client.frame())["error"]["code"] == 9
    assert all(truth.open for truth in venue.truth().values())


async def test_frames_over_the_rate_limit_are_refused(open_venue: Open) -> None:
    venue = await open_venue(cancels=Cancels(rate_limit=20.0, rate_code=429), behaviour=Behaviour(pending=False))
    orders = [venue.place().order_id for _ in range(25)]
    async with ready(venue) as client:
        await client.following()
        await client.cancel(*(item(f"y{n}", order) for n, order in enumerate(orders[:20])))
        await client.reports(20)
        await client.cancel(item("y20", orders[20]), item("y21", orders[21]), item("y22", orders[22]))
        assert (await client.frame())["error"]["code"] == 429
        await asyncio.sleep(0.2)  # the budget grows again with time alone
        await client.cancel(item("y20", orders[20]))
        assert (await client.reports(1))[0]["ExecType"] == "Canceled"


async def test_a_viewer_may_not_cancel(open_venue: Open) -> None:
    for way in ("error", "reject"):
        venue = await open_venue(login=Login(role="Viewer", viewer_answer=way))
        order = venue.place()
        async with ready(venue) as client:
            await client.following()
            await client.cancel(item(Y, order.order_id))
            if way == "error":
                assert (await client.frame())["type"] == "error"
            else:
                report = (await client.reports(1))[0]
                assert (report["ExecType"], report["CxlRejReason"]) == ("CancelRejected", 2)
        assert venue.truth()[order.order_id].open


# -- spoilt reports --------------------------------------------------------------------------------------------------


async def test_silence_with_the_truth_in_the_replay(open_venue: Open) -> None:
    venue = await open_venue()
    order = venue.place(behaviour=Behaviour(play="silent"))
    async with ready(venue) as client:
        await client.following()
        await client.cancel(item(Y, order.order_id))
        await client.quiet()
        await client.following()
        assert [r["ExecType"] for r in client.seen[-1]["data"]] == ["New", "PendingCancel", "Canceled"]
    assert venue.truth()[order.order_id].canceled_by == Y


async def test_one_report_lost_live_or_for_good(open_venue: Open) -> None:
    venue = await open_venue()
    lost = venue.place(behaviour=Behaviour(lose=("Canceled",)))
    gone = venue.place(behaviour=Behaviour(forget=("*",)))
    async with ready(venue) as client:
        await client.following()
        await client.cancel(item("y1", lost.order_id), item("y2", gone.order_id))
        assert [r["ExecType"] for r in await client.reports(1)] == ["PendingCancel"]
        await client.quiet()
        await client.following(OrderID=lost.order_id)
        assert [r["ExecType"] for r in client.seen[-1]["data"]] == ["New", "PendingCancel", "Canceled"]
        await client.following(OrderID=gone.order_id)
        assert [r["ExecType"] for r in client.seen[-1]["data"]] == ["New"]
        await client.following("Order", OrderID=gone.order_id)
        assert client.seen[-1]["data"][0]["OrdStatus"] == "Canceled"


async def test_reports_come_twice_or_altered(open_venue: Open) -> None:
    venue = await open_venue()
    twice = venue.place(behaviour=Behaviour(duplicates=1, pending=False))
    altered = venue.place(behaviour=Behaviour(duplicates=1, altered=True, pending=False))
    async with ready(venue) as client:
        first, second = await cancelled(venue, client, item("y1", twice.order_id), reports=2)
        assert first == second
        first, second = await cancelled(venue, client, item("y2", altered.order_id), reports=2)
        assert first["ExecID"] == second["ExecID"]
        assert first != second


async def test_reports_come_in_another_order_than_they_were_made(open_venue: Open) -> None:
    venue = await open_venue(behaviour=Behaviour(play="partial_fill", order="reversed"))
    order = venue.place()
    async with ready(venue) as client:
        found = await cancelled(venue, client, item(Y, order.order_id), reports=4)
    assert [r["ExecType"] for r in found] == ["Canceled", "Trade", "PendingCancel", "Trade"]
    assert [r["Timestamp"] for r in found] == sorted((r["Timestamp"] for r in found), reverse=True)


async def test_the_same_seed_shuffles_the_same(open_venue: Open) -> None:
    told = []
    for _ in range(2):
        venue = await open_venue(seed=5, behaviour=Behaviour(play="partial_fill", order="shuffled"))
        async with ready(venue) as client:
            order = venue.place()
            found = await cancelled(venue, client, item(Y, order.order_id), reports=4)
            told.append([(r["ExecID"], r["OrderID"], r["ExecType"]) for r in found])
    assert told[0] == told[1]


async def test_any_report_can_be_told_live_or_in_the_replay_alone(open_venue: Open) -> None:
    venue = await open_venue()
    order = venue.place()
    async with ready(venue) as client:
        await client.following()
        venue.tell(order, "Stopped", ord_status="Stopped", cl_ord_id="z")
        report = (await client.reports(1))[0]
        assert (report["ExecType"], report["OrdStatus"], report["ClOrdID"]) == ("Stopped", "Stopped", "z")
        venue.tell(order, "Restated", live=False)
        venue.tell(order, "Paused", kept=False)
        assert [r["ExecType"] for r in await client.reports(1)] == ["Paused"]
        await client.following()
        assert [r["ExecType"] for r in client.seen[-1]["data"]] == ["New", "Stopped", "Restated"]
    assert venue.truth()[order.order_id].status == "New"


async def test_fanout_to_all_sessions_or_the_senders_own(open_venue: Open) -> None:
    for fanout, heard in (("all", True), ("own", False)):
        venue = await open_venue(streams=Streams(report_fanout=fanout))  # type: ignore[arg-type]
        order = venue.place()
        async with ready(venue) as sender, ready(venue) as other:
            await sender.following()
            await other.following()
            await sender.cancel(item(Y, order.order_id))
            await sender.reports(2)
            if heard:
                await other.reports(2)
            await other.quiet(0.05)
            venue.place()
            await other.reports(1)  # what no session caused, all hear


# -- choosing the behaviour -------------------------------------------------------------------------------------------


async def test_who_decides_on_a_cancel(open_venue: Open) -> None:
    def rejecting(text: str) -> Behaviour:
        return Behaviour(play="reject", text=text)

    venue = await open_venue(
        behaviour=rejecting("default"),
        rules=(
            Rule(behaviour=rejecting("symbol"), symbol="ETH-*"),
            Rule(behaviour=rejecting("order"), order_id="special-?"),
            Rule(behaviour=rejecting("once"), cl_ord_id="once*", count=1),
        ),
    )

    def chooser(asked: CancelItem) -> Behaviour | None:
        return rejecting("callback") if asked.cl_ord_id == "call" else None

    venue.on_cancel = chooser
    plain, own = venue.place(), venue.place(behaviour=(rejecting("own 1"), rejecting("own 2")))
    special, ether = venue.place(order_id="special-1"), venue.place(symbol="ETH-USD")
    async with ready(venue) as client:
        await client.following()
        for cl_ord_id, order, text in (
            ("y1", plain, "default"), ("call", plain, "callback"), ("once1", plain, "once"),
            ("once2", plain, "default"),
            ("y2", special, "order"), ("y3", ether, "symbol"), ("y4", own, "own 1"), ("y5", own, "own 2"),
            ("y6", own, "own 2"),
        ):  # fmt: skip
            await client.cancel(item(cl_ord_id, order.order_id, symbol=order.symbol))
            assert (await client.reports(1))[0]["Text"] == text
        venue.rule(rejecting("later"), order_id=plain.order_id)
        await client.cancel(item("y7", plain.order_id))
        assert (await client.reports(1))[0]["Text"] == "later"


async def test_the_mix_depends_on_seed_and_order_alone(open_venue: Open) -> None:
    mix = (Weighted(behaviour=Behaviour(pending=False), weight=3), Weighted(behaviour=Behaviour(play="reject")))

    async def outcomes(seed: int, orders: list[int]) -> dict[str, str]:
        venue = await open_venue(seed=seed, mix=mix, cancels=Cancels(auto_orders=True))
        async with ready(venue) as client:
            items = [item(f"y{n}", f"o{n}") for n in orders]
            found = await cancelled(venue, client, *items, reports=len(items))
            return {report["OrderID"]: report["ExecType"] for report in found}

    forwards = await outcomes(1, list(range(200)))
    assert forwards == await outcomes(1, list(reversed(range(200))))
    assert forwards != await outcomes(2, list(range(200)))
    canceled = sum(kind == "Canceled" for kind in forwards.values())
    assert 120 < canceled < 180


async def test_implicit_orders_stay_and_unknown_ones_are_not_made_up(open_venue: Open) -> None:
    venue = await open_venue(
        cancels=Cancels(auto_orders=True), rules=(Rule(behaviour=Behaviour(play="unknown"), order_id="ghost*"),)
    )
    async with ready(venue) as client:
        found = await cancelled(venue, client, item("y1", "made-up", symbol="X-Y"), item("y2", "ghost-1"), reports=3)
        kinds = [(r["OrderID"], r["Symbol"], r["ExecType"]) for r in found]
        assert kinds[1:] == [("made-up", "X-Y", "Canceled"), ("NONE", "BTC-USD", "CancelRejected")]
        await client.following("Order", OrderID="ghost-1")
        assert client.seen[-1]["data"] == []
    assert set(venue.truth()) == {"made-up"}


async def test_an_order_appears_later_under_an_id_known_before(open_venue: Open) -> None:
    venue = await open_venue()
    order_id = venue.place_later(0.05, symbol="BTC-USD")
    async with ready(venue) as client:
        found = await cancelled(venue, client, item("y1", order_id), reports=1)
        assert found[0]["CxlRejReason"] == 1
        assert (await client.reports(1))[0]["OrderID"] == order_id
        found = await cancelled(venue, client, item("y2", order_id), reports=2)
        assert found[-1]["ExecType"] == "Canceled"


async def test_the_ledger_keeps_what_came(open_venue: Open) -> None:
    venue = await open_venue()
    order = venue.place()
    async with ready(venue) as client:
        sent = item(Y, order.order_id)
        reqid = await client.cancel(sent)
        await venue.until(lambda: venue.cancels)
    seen = venue.cancels[0]
    assert (seen.session, seen.reqid, seen.index, seen.batch, seen.fate) == (1, reqid, 0, 1, "processed")
    assert (seen.symbol, seen.cl_ord_id, seen.order_id) == (sent["Symbol"], Y, order.order_id)
    assert (seen.transact_time, seen.orig_cl_ord_id) == (sent["TransactTime"], None)
    frame = venue.received[-1]
    assert (frame.reqid, frame.type, frame.message["data"]) == (reqid, "OrderCancelRequest", [sent])
    assert venue.ledger.counts == {"upgrades": 1, "frames": 1, "cancels_processed": 1}
