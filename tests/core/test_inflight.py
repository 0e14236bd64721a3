"""Who is out: found by every id, forgotten without a trace (protocol section 6)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.cancel import CancelState, cancel_of, concerns
from worker.core.command import CommandState
from worker.core.facts import Delivery
from worker.core.inflight import Inflight
from worker.wire.command import CancelItem, Context, derive_cl_ord_id
from worker.wire.venue import Record


def a_cancel(
    cl_ord_id: str = "y-1", order_id: str | None = "o-1", orig: str | None = None, *, redelivered: bool = False
) -> CancelState:
    command = CommandState("cmd", Context("cmd"), "cancel", Delivery("cancel", 1, 1), redelivered, b"", 0, "", None)
    return cancel_of(command, CancelItem(0, "S", cl_ord_id, order_id, orig, None, None))


def indexes(table: Inflight) -> list[dict[Any, Any]]:
    return [table._by_request, table._by_order, table._by_client]


@pytest.mark.parametrize(
    "record",
    [
        Record(cl_ord_id="y-1"),
        Record(cl_ord_id="y-1", order_id="NONE"),
        Record(cl_ord_id="z", order_id="o-1"),
        Record(cl_ord_id="z", orig_cl_ord_id="x-1"),
        Record(cl_ord_id="x-1"),
        Record(cl_ord_id="y-1", order_id="o-1", orig_cl_ord_id="x-1"),
    ],
)
def test_found_once_by_any_of_the_three_matches(record: Record) -> None:
    table, cancel = Inflight(0), a_cancel(orig="x-1")
    table.enter(cancel)
    assert list(table.find(record)) == [cancel]


@pytest.mark.parametrize(
    "record",
    [
        Record(),
        Record(cl_ord_id="z", order_id="o-2"),
        Record(cl_ord_id="y-1", order_id="o-2"),
        Record(cl_ord_id="x-1", order_id="o-2"),
        Record(order_id="NONE"),
        Record(order_id=""),
    ],
)
def test_not_found_by_what_speaks_of_others(record: Record) -> None:
    table = Inflight(0)
    table.enter(a_cancel(orig="x-1"))
    assert list(table.find(record)) == []


def test_of_two_under_one_cl_ord_id_the_one_whose_order_is_named_is_found() -> None:
    """Neither OrderID is known yet; the report tells by the order's client id whom it is about (contract 4.2)."""
    table = Inflight(0)
    one, two = a_cancel(order_id=None, orig="x-1"), a_cancel(order_id=None, orig="x-2")
    table.enter(one)
    table.enter(two)
    assert list(table.find(Record(cl_ord_id="y-1", order_id="o-1", orig_cl_ord_id="x-1"))) == [one]
    assert list(table.find(Record(cl_ord_id="y-1", order_id="o-2", orig_cl_ord_id="x-2"))) == [two]
    assert list(table.find(Record(cl_ord_id="y-1", order_id="NONE"))) == [one, two]
    table.learn_order(two, "o-2")
    assert list(table.find(Record(cl_ord_id="y-1", order_id="o-2"))) == [two]


def test_learned_ids_find_it_too() -> None:
    table, cancel = Inflight(0), a_cancel(order_id=None, orig="x-1")
    table.enter(cancel)
    table.learn_order(cancel, "o-9")
    table.learn_client(cancel, "x-2")
    table.learn_client(cancel, "x-2")
    cancel.take_fresh_id()
    table.learn_request(cancel)
    for record in (Record(order_id="o-9"), Record(cl_ord_id="x-2"), Record(cl_ord_id=derive_cl_ord_id("cmd", 0, 2))):
        assert list(table.find(record)) == [cancel]
    table.drop(cancel)
    assert indexes(table) == [{}, {}, {}]


def test_the_earlier_processs_fresh_ids_find_a_redelivered_cancel() -> None:
    table, cancel = Inflight(0), a_cancel(redelivered=True)
    table.enter(cancel)
    assert list(table.find(Record(cl_ord_id=derive_cl_ord_id("cmd", 0, 2)))) == [cancel]
    table.drop(cancel)
    assert indexes(table) == [{}, {}, {}]


def test_ended_ones_are_forgotten_first_in_first_out() -> None:
    table = Inflight(2)
    ended = []
    for n in range(4):
        cancel = a_cancel(f"y-{n}", f"o-{n}", redelivered=n == 0)
        table.enter(cancel)
        ended.append(table.end(cancel, b""))
    assert [list(table.find(Record(order_id=f"o-{n}"))) for n in range(4)] == [[], [], [ended[2]], [ended[3]]]
    table.drop(ended[2])
    table.drop(ended[3])
    assert indexes(table) == [{}, {}, {}]


def test_what_is_kept_of_an_ended_one_takes_its_place_under_every_id() -> None:
    table = Inflight(2)
    cancel, other = a_cancel("y-1", "o-1", "x-1", redelivered=True), a_cancel("y-2", "o-1", "x-1")
    cancel.take_fresh_id()
    table.enter(cancel)
    table.enter(other)
    assert cancel in table.find(Record(order_id="o-1"))
    ended = table.end(cancel, b"")
    for record in (Record(cl_ord_id="y-1"), *(Record(cl_ord_id=derive_cl_ord_id("cmd", 0, n)) for n in range(2, 10))):
        assert list(table.find(record)) == [ended]
    for record in (Record(order_id="o-1"), Record(orig_cl_ord_id="x-1")):
        assert list(table.find(record)) == [ended, other]


IDS = st.sampled_from(["a", "b", "c"])


@given(
    st.lists(st.tuples(IDS, st.none() | IDS, st.none() | IDS, st.booleans()), max_size=6),
    st.builds(Record, cl_ord_id=st.none() | IDS, order_id=st.none() | IDS, orig_cl_ord_id=st.none() | IDS),
    st.data(),
)
def test_it_finds_what_a_walk_over_all_would_and_forgets_all_of_it(
    made: list[tuple[str, str | None, str | None, bool]], record: Record, data: st.DataObject
) -> None:
    table = Inflight(10)
    cancels = [a_cancel(y, o, x, redelivered=again) for y, o, x, again in made]
    for cancel in cancels:
        table.enter(cancel)

    def named(c: CancelState) -> bool:
        by_order = record.order_id is not None and c.order_id == record.order_id
        return by_order or record.orig_cl_ord_id in c.client_ids or record.cl_ord_id in c.client_ids

    owners = [c for c in cancels if c.owns(record.cl_ord_id)]
    expected = [c for c in cancels if (c in owners or named(c)) and concerns(c, record)]
    if len(owners) > 1 and any(map(named, expected)):
        expected = list(filter(named, expected))
    found = list(table.find(record))
    assert len(found) == len(set(map(id, found)))
    assert set(map(id, found)) == set(map(id, expected))
    for cancel in data.draw(st.permutations(cancels)):
        table.drop(cancel)
        table.drop(cancel)
    assert indexes(table) == [{}, {}, {}]
