"""The worker's own book of open orders: what reports make of it, and its bounds (contract section 5)."""

from __future__ import annotations

import random

import pytest

from worker.core.book import OpenOrders
from worker.wire.venue import Record


def told(n: int, exec_type: str = "New", ord_status: str = "New") -> Record:
    return Record(order_id=f"order-{n}", exec_type=exec_type, ord_status=ord_status, leaves_qty="0.75000000")


def test_an_order_is_in_the_book_from_its_first_report_to_its_last_and_does_not_come_back() -> None:
    book = OpenOrders()
    first = told(1)
    book.note(first)
    book.note(told(1, "Trade", "PartiallyFilled"))
    book.note(told(2, "Trade", "PartiallyFilled"))
    assert book.ids() == {"order-1", "order-2"}
    assert next(book.orders()) is first
    book.note(told(1, "PendingCancel", "PendingCancel"))
    book.note(told(2, "Trade", "Filled"))
    book.note(told(2, "Trade", "PartiallyFilled"))
    assert book.ids() == {"order-1"}


@pytest.mark.parametrize("order_id", [None, "", "NONE"])
def test_a_report_that_names_no_order_is_not_booked(order_id: str | None) -> None:
    book = OpenOrders()
    book.note(Record(order_id=order_id, exec_type="New", ord_status="New"))
    book.note(Record(order_id=order_id, exec_type="Canceled", ord_status="Canceled"))
    book.note_listed(Record(order_id=order_id, ord_status="New"))
    book.note_listed(Record(order_id=order_id, ord_status="Filled"))
    assert len(book) == 0


def test_the_oldest_give_way_one_at_a_time() -> None:
    """Thousands at once would hold up the cancels: to free them takes milliseconds."""
    book = OpenOrders(most=100)
    for n in range(1, 1_001):
        book.note(told(n))
        assert [record.order_id for record in book.orders()] == [f"order-{k}" for k in range(max(1, n - 99), n + 1)]


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_holds_while_orders_of_any_age_close(seed: int) -> None:
    chance = random.Random(seed)
    book = OpenOrders(most=100)
    closed = set()
    for n in range(1, 2_001):
        book.note(told(n))
        assert f"order-{n}" in book.ids()
        assert len(book) <= 100
        if chance.random() < 0.3:
            gone = max(1, n - chance.randrange(90, 105))  # about as old as those that give way next
            book.note(told(gone, "Canceled", "Canceled"))
            closed.add(f"order-{gone}")
        assert not book.ids() & closed
