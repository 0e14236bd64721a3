"""Envelope, subscriptions, snapshots, pages, pings, errors: protocol sections 2 and 3.1 to 3.7."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from tests.simulator.client import START, Client, item, ready, utc_now
from tests.simulator.conftest import Open
from worker.simulator import Behaviour, Cancels, Frames, Streams
from worker.simulator.wire import parse_stamp

PAST, FUTURE = "2020-01-01T00:00:00.000000Z", "2099-01-01T00:00:00.000000Z"


async def answer(client: Client, message: object) -> dict[str, Any]:
    await client.raw(message)
    return await client.frame()


async def test_reqid_zero_absent_or_no_integer_is_refused_with_code_1(open_venue: Open) -> None:
    venue = await open_venue()
    async with ready(venue) as client:
        for reqid in (0, -1, "1", 1.5, True, None, 2**53):
            message: dict[str, object] = {"reqid": reqid, "type": "Ping", "ts": utc_now(), "data": [{}]}
            found = await answer(client, message)
            assert (found["type"], found["error"]["code"]) == ("error", 1)
        for broken in ("{", "[]", "7", '{"reqid":'):
            found = await answer(client, broken)
            assert "reqid" not in found or found["reqid"] is None
            assert found["error"]["code"] == 1
        assert (await answer(client, {"reqid": 1, "type": "ping"}))["error"]["code"] == 1


async def test_an_error_frame_numbers_itself_seq(open_venue: Open) -> None:
    venue = await open_venue()
    async with ready(venue) as client:
        found = await answer(client, {"reqid": 41, "type": "NoSuchType"})
        assert (found["reqid"], found["seq"], "seqNum" in found) == (41, 1, False)
        assert parse_stamp(found["ts"]) is not None


@pytest.mark.parametrize(("form", "shown"), [("given", 5), ("absent", None), ("zero", 0)])
async def test_an_error_frame_may_not_say_which_request(open_venue: Open, form: Any, shown: int | None) -> None:
    venue = await open_venue(frames=Frames(error_reqid=form))
    async with ready(venue) as client:
        assert (await answer(client, {"reqid": 5, "type": "NoSuchType"})).get("reqid") == shown


async def test_a_reqid_in_use_is_refused_with_code_2(open_venue: Open) -> None:
    venue = await open_venue(frames=Frames(any_used_reqid=False))
    async with ready(venue) as client:
        subscribe = {"reqid": 9, "type": "subscribe", "streams": [{"name": "Order", "StartDate": START}]}
        assert (await answer(client, subscribe))["initial"] is True
        found = await answer(client, subscribe)
        assert (found["reqid"], found["error"]["code"]) == (9, 2)
        ping = {"reqid": 9, "type": "Ping", "ts": utc_now(), "data": [{}]}
        assert (await answer(client, ping))["error"]["code"] == 2
        await client.raw({"reqid": 9, "type": "cancel"})
        assert (await answer(client, ping))["type"] == "Pong"


async def test_a_retired_reqid_is_refused_too_unless_scripted(open_venue: Open) -> None:
    venue = await open_venue()
    async with ready(venue) as client:
        ping = {"reqid": 9, "type": "Ping", "ts": utc_now(), "data": [{}]}
        assert (await answer(client, ping))["type"] == "Pong"
        assert (await answer(client, ping))["error"]["code"] == 2


async def test_ping_is_echoed_and_needs_data(open_venue: Open) -> None:
    venue = await open_venue()
    async with ready(venue) as client:
        found = await answer(client, {"reqid": 77, "type": "Ping", "ts": utc_now(), "data": [{"n": 77}, {"a": "b"}]})
        assert (found["reqid"], found["type"], found["data"]) == (77, "Pong", [{"n": 77}, {"a": "b"}])
        assert found["seqNum"] == 0
        faulty: list[dict[str, object]] = [{}, {"data": []}, {"data": "x"}]
        for number, data in enumerate(faulty):
            found = await answer(client, {"reqid": 80 + number, "type": "Ping", "ts": utc_now(), **data})
            assert found["error"] == {"code": 1, "msg": "missing Ping data"}
        assert (await answer(client, {"reqid": 90, "type": "Ping", "data": [{}]}))["error"]["code"] == 1


async def test_pong_without_a_number(open_venue: Open) -> None:
    venue = await open_venue(frames=Frames(pong_seq=False))
    async with ready(venue) as client:
        assert "seqNum" not in await answer(client, {"reqid": 1, "type": "Ping", "ts": utc_now(), "data": [{}]})


async def test_a_session_may_close_after_an_error(open_venue: Open) -> None:
    venue = await open_venue(frames=Frames(close_after_error=True))
    async with ready(venue) as client:
        assert (await answer(client, {"reqid": 1, "type": "?"}))["type"] == "error"
        await client.connection.wait_closed()
        assert client.connection.close_code == 1008


async def test_the_first_answer_is_a_snapshot_then_live_frames_follow(open_venue: Open) -> None:
    venue = await open_venue()
    first = venue.place()
    async with ready(venue) as client:
        await client.raw({"reqid": 1, "type": "subscribe", "tag": "t1", "streams": [
            {"name": "ExecutionReport", "StartDate": START}]})  # fmt: skip
        frame = await client.frame()
        assert frame["initial"] is True
        assert (frame["seqNum"], frame["tag"], frame["total_count"], frame["action"]) == (1, "t1", 1, "Update")
        assert [record["OrderID"] for record in frame["data"]] == [first.order_id]
        second = venue.place()
        frame = await client.frame()
        assert not frame.get("initial")
        assert (frame["seqNum"], frame["tag"], frame["data"][0]["OrderID"]) == (2, "t1", second.order_id)


async def test_a_record_has_every_field_that_is_always_there(open_venue: Open) -> None:
    venue = await open_venue(behaviour=Behaviour(play="partial_fill"))
    always = {"Timestamp", "Symbol", "OrderID", "ClOrdID", "SubmitTime", "ExecID", "Side", "TransactTime", "ExecType"}
    always |= {"OrdStatus", "OrderQty", "OrdType", "Currency"}
    order = venue.place()
    async with ready(venue) as client:
        await client.following()
        await client.cancel(item("y", order.order_id), item("z", "no-such-order"))
        for record in await client.reports(5):
            assert always <= set(record)
            assert all(isinstance(record[key], str) for key in always)
        await client.subscribe("Order")
        frame = await client.until(lambda frame: frame["type"] == "Order")
        assert always <= set(frame["data"][0])


async def test_an_empty_snapshot_is_sent_or_not(open_venue: Open) -> None:
    for sent in (True, False):
        venue = await open_venue(streams=Streams(empty_snapshot=sent))
        async with ready(venue) as client:
            await client.subscribe()
            if sent:
                frame = await client.frame()
                assert (frame["initial"], frame["data"], frame["total_count"]) == (True, [], 0)
            else:
                await client.quiet()
            venue.place()
            assert not (await client.frame()).get("initial")


async def test_a_snapshot_may_never_come(open_venue: Open) -> None:
    venue = await open_venue(streams=Streams(snapshot="never"))
    venue.place()
    async with ready(venue) as client:
        await client.subscribe()
        await client.quiet()


async def test_a_late_snapshot_misses_nothing(open_venue: Open) -> None:
    venue = await open_venue(streams=Streams(snapshot_delay=0.05))
    async with ready(venue) as client:
        await client.subscribe()
        await venue.until(lambda: len(venue.received) == 1)
        venue.place()
        frame = await client.frame()
        assert (frame["initial"], len(frame["data"])) == (True, 1)


async def test_reports_go_by_publication_and_orders_by_submission(open_venue: Open) -> None:
    venue = await open_venue()
    old = venue.place(age=3600.0)
    async with ready(venue) as client:
        between = utc_now()
        venue.fill(old, "0.1")
        young = venue.place()
        await client.following(StartDate=between)
        published = [(r["OrderID"], r["ExecType"]) for r in client.seen[-1]["data"]]
        assert published == [(old.order_id, "Trade"), (young.order_id, "New")]
        await client.following("Order", StartDate=between)
        assert [r["OrderID"] for r in client.seen[-1]["data"]] == [young.order_id]
        await client.following("Order", EndDate=between)
        assert [r["OrderID"] for r in client.seen[-1]["data"]] == [old.order_id]
        await client.following(EndDate=between)
        assert [r["ExecType"] for r in client.seen[-1]["data"]] == ["New"]


async def test_filters(open_venue: Open) -> None:
    venue = await open_venue()
    one = venue.place(symbol="BTC-USD", rfq_id="r1")
    two = venue.place(symbol="ETH-USD")
    for name in ("ExecutionReport", "Order"):
        async with ready(venue) as client:
            for wanted, expected in (
                ({"Symbol": "ETH-USD"}, two), ({"OrderID": one.order_id}, one), ({"RFQID": "r1"}, one),
            ):  # fmt: skip
                await client.following(name, **wanted)
                assert [record["OrderID"] for record in client.seen[-1]["data"]] == [expected.order_id]


async def test_no_start_date_gets_what_the_script_says(open_venue: Open) -> None:
    for choice, expected in (("all", 2), ("open", 1), ("none", 0)):
        venue = await open_venue(streams=Streams(no_start_date=choice))  # type: ignore[arg-type]
        venue.place()
        closed = venue.place()
        venue.happen(closed, "CanceledByOther")
        async with ready(venue) as client:
            await client.following("Order", StartDate=None)
            assert len(client.seen[-1]["data"]) == expected


@pytest.mark.parametrize(
    "stream",
    [
        {"name": "Trades"}, {"name": "Order", "StartDate": "yesterday"}, {"name": "Order", "Symbol": 7}, "Order",
        {"name": "Order", "Statuses": 3}, {},
    ],
)  # fmt: skip
async def test_a_subscription_that_makes_no_sense_is_an_error(open_venue: Open, stream: object) -> None:
    venue = await open_venue()
    async with ready(venue) as client:
        found = await answer(client, {"reqid": 1, "type": "subscribe", "streams": [stream]})
        assert (found["type"], found["reqid"], found["error"]["code"]) == ("error", 1, 1)


@pytest.mark.parametrize(
    ("form", "statuses", "works"),
    [
        ("array", ["New", "Filled"], True), ("array", "New,Filled", False), ("text", "New,Filled", True),
        ("text", ["New"], False), ("both", ["New"], True), ("both", "New", True),
    ],
)  # fmt: skip
async def test_statuses_in_the_form_the_venue_takes(open_venue: Open, form: Any, statuses: object, works: bool) -> None:
    venue = await open_venue(streams=Streams(statuses_form=form))
    venue.place()
    async with ready(venue) as client:
        await client.subscribe("Order", Statuses=statuses)
        frame = await client.frame()
        assert (frame["type"] == "Order") is works
        assert len(frame.get("data", ())) == int(works)


async def test_an_order_that_leaves_the_filter_is_removed(open_venue: Open) -> None:
    venue = await open_venue(behaviour=Behaviour(pending=False))
    order = venue.place()
    async with ready(venue) as client:
        await client.following("Order", Statuses=["New", "PartiallyFilled"])
        venue.fill(order, "0.1")
        frame = await client.frame()
        assert (frame["action"], frame["data"][0]["OrdStatus"]) == ("Update", "PartiallyFilled")
        await client.cancel(item("y", order.order_id))
        frame = await client.frame()
        assert (frame["action"], frame["data"][0]["OrderID"]) == ("Remove", order.order_id)
        await client.quiet()


async def test_the_order_stream_shows_the_last_request(open_venue: Open) -> None:
    venue = await open_venue()
    order = venue.place()
    async with ready(venue) as client:
        await client.following("Order")
        await client.cancel(item("y", order.order_id))
        records = [(await client.frame())["data"][0] for _ in range(2)]
        assert [(r["OrdStatus"], r["ClOrdID"]) for r in records] == [("PendingCancel", "y"), ("Canceled", "y")]
        await client.following("Order", OrderID=order.order_id)
        record = client.seen[-1]["data"][0]
        assert (record["OrdStatus"], record["ClOrdID"], record["OrigClOrdID"]) == ("Canceled", "y", order.cl_ord_id)


async def test_the_order_stream_tells_whose_request_closed_the_order(open_venue: Open) -> None:
    venue = await open_venue(behaviour=Behaviour(pending=False))
    ours, theirs, refused = venue.place(), venue.place(), venue.place(behaviour=Behaviour(play="reject", pending=True))
    venue.happen(theirs, "CanceledByOther")
    async with ready(venue) as client:
        await client.cancel(*(item(f"y{n}", order.order_id) for n, order in enumerate((ours, theirs, refused))))
        await client.following("Order")
        last = {record["OrderID"]: (record["OrdStatus"], record["ClOrdID"]) for record in client.seen[-1]["data"]}
    assert last[ours.order_id] == ("Canceled", "y0")
    assert last[theirs.order_id] == ("Canceled", venue.truth()[theirs.order_id].canceled_by)
    assert last[theirs.order_id][1] not in ("y1", theirs.cl_ord_id)
    assert last[refused.order_id] == ("New", refused.cl_ord_id)


async def test_a_report_filter_by_statuses_hides_reports(open_venue: Open) -> None:
    venue = await open_venue()
    order = venue.place()
    async with ready(venue) as client:
        await client.following(Statuses=["PendingCancel"])
        await client.cancel(item("y", order.order_id))
        assert [r["ExecType"] for r in await client.reports(1)] == ["PendingCancel"]
        await client.quiet()


async def test_several_streams_share_a_reqid_and_its_numbers(open_venue: Open) -> None:
    venue = await open_venue()
    venue.place()
    async with ready(venue) as client:
        await client.send("subscribe", streams=[{"name": n, "StartDate": START} for n in ("ExecutionReport", "Order")])
        frames = [await client.frame() for _ in range(2)]
        assert [(f["type"], f["seqNum"], f["initial"]) for f in frames] == [
            ("ExecutionReport", 1, True),
            ("Order", 2, True),
        ]


@pytest.mark.parametrize("name", ["seq", "none"])
async def test_the_number_may_be_called_seq_or_be_missing(open_venue: Open, name: Any) -> None:
    venue = await open_venue(frames=Frames(seq_name=name))
    async with ready(venue) as client:
        await client.subscribe()
        frame = await client.frame()
        assert "seqNum" not in frame
        assert frame.get("seq") == (1 if name == "seq" else None)


async def read_pages(client: Client, reqid: int, name: str, form: str = "streams") -> list[dict[str, Any]]:
    """All records of a paged first answer; the first frame is still to be read."""
    records: list[dict[str, Any]] = []
    while True:
        frame = await client.until(lambda frame: frame["reqid"] == reqid)
        assert frame["type"] == name, frame
        assert frame["initial"] is True
        records += frame["data"]
        if "next" not in frame:
            return records
        await client.raw({"reqid": reqid, "type": "page", form: [{"name": name, "after": frame["next"]}]})


@pytest.mark.parametrize("name", ["ExecutionReport", "Order"])
@pytest.mark.parametrize("form", ["streams", "data"])
async def test_pages_hand_out_every_record_once(open_venue: Open, name: str, form: str) -> None:
    venue = await open_venue(streams=Streams(page_size=3))
    placed = [venue.place().order_id for _ in range(10)]
    async with ready(venue) as client:
        reqid = await client.subscribe(name)
        records = await read_pages(client, reqid, name, form)
        assert [record["OrderID"] for record in records] == placed
        assert [frame["seqNum"] for frame in client.seen[1:]] == [1, 2, 3, 4]


async def test_pages_may_overlap_and_come_in_any_order(open_venue: Open) -> None:
    orders: tuple[Literal["reversed", "shuffled"], ...] = ("reversed", "shuffled")
    for order in orders:
        venue = await open_venue(streams=Streams(page_size=4, page_overlap=1, replay_order=order))
        placed = [venue.place().order_id for _ in range(10)]
        async with ready(venue) as client:
            reqid = await client.subscribe()
            ids = [record["OrderID"] for record in await read_pages(client, reqid, "ExecutionReport")]
            assert len(ids) > len(placed)
            assert set(ids) == set(placed)
            assert list(dict.fromkeys(ids)) != placed


@pytest.mark.parametrize(("taken", "sent"), [("streams", "data"), ("data", "streams")])
async def test_the_other_form_of_a_page_request_is_an_error(open_venue: Open, taken: Any, sent: str) -> None:
    venue = await open_venue(streams=Streams(page_size=1, page_form=taken))
    venue.place()
    venue.place()
    async with ready(venue) as client:
        reqid = await client.subscribe()
        after = (await client.frame())["next"]
        wanted = [{"name": "ExecutionReport", "after": after}]
        found = await answer(client, {"reqid": reqid, "type": "page", sent: wanted})
        assert (found["type"], found["reqid"]) == ("error", reqid)
        found = await answer(client, {"reqid": reqid, "type": "page", taken: wanted})
        assert found["type"] == "ExecutionReport"


async def test_an_unknown_cursor_is_an_error(open_venue: Open) -> None:
    venue = await open_venue(streams=Streams(page_size=1))
    venue.place()
    venue.place()
    async with ready(venue) as client:
        reqid = await client.subscribe()
        await client.frame()
        for wanted in ([{"name": "ExecutionReport", "after": "bm8="}], [{"name": "Order", "after": "x"}], [], ["x"]):
            found = await answer(client, {"reqid": reqid, "type": "page", "streams": wanted})
            assert (found["type"], found["error"]["code"]) == ("error", 1)


async def test_next_may_repeat_for_ever(open_venue: Open) -> None:
    venue = await open_venue(streams=Streams(page_size=2, repeat_cursor=True))
    for _ in range(3):
        venue.place()
    async with ready(venue) as client:
        reqid = await client.subscribe()
        frame = await client.frame()
        cursors, pages = [frame["next"]], [frame["data"]]
        for _ in range(3):
            wanted = [{"name": "ExecutionReport", "after": cursors[-1]}]
            frame = await answer(client, {"reqid": reqid, "type": "page", "streams": wanted})
            cursors.append(frame["next"])
            pages.append(frame["data"])
        assert len(set(cursors)) == 1
        assert all(page == pages[0] for page in pages)


async def test_live_frames_flow_while_pages_are_outstanding_or_wait(open_venue: Open) -> None:
    for flows in (True, False):
        venue = await open_venue(streams=Streams(page_size=1, live_while_paging=flows))
        venue.place()
        venue.place()
        async with ready(venue) as client:
            reqid = await client.subscribe()
            after = (await client.frame())["next"]
            live = venue.place()
            if flows:
                assert (await client.frame())["data"][0]["OrderID"] == live.order_id
            await client.raw({"reqid": reqid, "type": "page", "streams": [{"name": "ExecutionReport", "after": after}]})
            assert (await client.frame())["initial"] is True
            if not flows:
                assert (await client.frame())["data"][0]["OrderID"] == live.order_id
            later = venue.place()  # the last page is out: nothing holds live frames back any more
            assert (await client.frame())["data"][0]["OrderID"] == later.order_id


async def test_ending_a_stream_is_silent_and_final(open_venue: Open) -> None:
    venue = await open_venue()
    async with ready(venue) as client:
        reqid = await client.following()
        await client.raw({"reqid": reqid, "type": "cancel"})
        await client.quiet()
        venue.place()
        await client.quiet()
        found = await answer(client, {"reqid": reqid, "type": "cancel"})
        assert (found["type"], found["reqid"]) == ("error", reqid)
        found = await answer(client, {"reqid": reqid, "type": "page", "streams": []})
        assert found["type"] == "error"


async def test_records_are_joined_in_frames_as_scripted(open_venue: Open) -> None:
    venue = await open_venue(streams=Streams(records_per_frame=4))
    async with ready(venue) as client:
        await client.following()
        for _ in range(10):
            venue.place()
        sizes = [len((await client.frame())["data"]) for _ in range(3)]
        assert sizes == [4, 4, 2]


async def test_reports_of_other_users_show_up(open_venue: Open) -> None:
    venue = await open_venue()
    async with ready(venue) as client:
        await client.following()
        venue.place()
        await venue.emit_foreign(3)
        users = [report["CustomerUser"] for report in await client.reports(4)]
        assert users == ["trader@example.com"] + ["another@example.com"] * 3


async def test_numbers_may_skip(open_venue: Open) -> None:
    venue = await open_venue()
    async with ready(venue) as client:
        await client.following()
        venue.skip_seq(2)
        venue.place()
        assert (await client.frame())["seqNum"] == 4


async def test_any_frame_can_be_sent(open_venue: Open) -> None:
    venue = await open_venue()
    async with ready(venue) as client:
        venue.send_raw(b'{"type":"Surprise"}')
        assert (await client.frame()) == {"type": "Surprise"}
        venue.send_raw(b"\xff\xfe")
        assert await client.connection.recv(decode=False) == b"\xff\xfe"


async def test_implicit_orders_are_found_before_they_are_cancelled(open_venue: Open) -> None:
    venue = await open_venue(cancels=Cancels(auto_orders=True))
    async with ready(venue) as client:
        await client.following("Order", OrderID="made-up")
        record = client.seen[-1]["data"][0]
        assert (record["OrderID"], record["OrdStatus"]) == ("made-up", "New")
