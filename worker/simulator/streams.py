"""Subscriptions: filters, snapshots, pages, live frames (protocol sections 3.2 to 3.5). Pure; no sockets, no clock."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from worker.simulator.book import Book, Entry, Order
from worker.simulator.script import Streams
from worker.simulator.wire import CLOSED_STATUSES, cursor, parse_stamp, stream_frame

STREAM_NAMES: Final = ("ExecutionReport", "Order")


class BadRequest(Exception):
    """A request the venue answers with an error frame, code 1."""


@dataclass(slots=True)
class Filter:
    """One stream of a subscription; None matches everything."""

    name: str
    start_us: int | None = None
    end_us: int | None = None
    symbol: str | None = None
    statuses: frozenset[str] | None = None
    order_id: str | None = None
    rfq_id: str | None = None
    members: set[str] = field(default_factory=set)

    def _fits(self, symbol: str, order_id: str, rfq_id: str | None) -> bool:
        return (
            (self.symbol is None or self.symbol == symbol)
            and (self.order_id is None or self.order_id == order_id)
            and (self.rfq_id is None or self.rfq_id == rfq_id)
        )

    def takes_report(self, entry: Entry) -> bool:
        """Reports published at or after StartDate and before EndDate."""
        return (
            (self.start_us is None or entry.published_us >= self.start_us)
            and (self.end_us is None or entry.published_us < self.end_us)
            and (self.statuses is None or entry.ord_status in self.statuses)
            and self._fits(entry.symbol, entry.order_id, entry.rfq_id)
        )

    def covers_order(self, order: Order) -> bool:
        """Orders submitted after StartDate and before EndDate, whatever their status."""
        return (
            (self.start_us is None or order.submitted_us > self.start_us)
            and (self.end_us is None or order.submitted_us < self.end_us)
            and self._fits(order.symbol, order.order_id, order.rfq_id)
        )

    def takes_order(self, order: Order) -> bool:
        return self.covers_order(order) and (self.statuses is None or order.ord_status in self.statuses)


def read_filter(stream: object, settings: Streams) -> Filter:
    """One element of `streams`; BadRequest names what is wrong."""
    if not isinstance(stream, dict):
        raise BadRequest("streams must hold objects")
    name = stream.get("name")
    if name not in STREAM_NAMES:
        raise BadRequest(f"unknown stream {str(name)[:40]!r}")
    wanted = Filter(name)
    wanted.start_us, wanted.end_us = _time(stream, "StartDate"), _time(stream, "EndDate")
    wanted.symbol, wanted.order_id = _text(stream, "Symbol"), _text(stream, "OrderID")
    wanted.rfq_id = _text(stream, "RFQID")
    if stream.get("Statuses") is not None:
        wanted.statuses = _statuses(stream["Statuses"], settings.statuses_form)
    return wanted


def _text(stream: dict[str, Any], key: str) -> str | None:
    value = stream.get(key)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"{key} must be a string")
    return value


def _time(stream: dict[str, Any], key: str) -> int | None:
    value = stream.get(key)
    if value is None:
        return None
    found = parse_stamp(value)
    if found is None:
        raise BadRequest(f"{key} must be a UTC time such as 2026-03-09T14:05:00.000000Z")
    return found


def _statuses(value: object, form: str) -> frozenset[str]:
    if isinstance(value, str) and form in ("text", "both"):
        return frozenset(word.strip() for word in value.split(","))
    if isinstance(value, list) and form in ("array", "both") and all(isinstance(word, str) for word in value):
        return frozenset(value)
    raise BadRequest("Statuses has the wrong form")


@dataclass(slots=True)
class Snapshot:
    """What one stream of a subscription has still to hand out, page by page."""

    wanted: Filter
    rows: list[Entry] | list[Order]
    cursors: dict[str, int] = field(default_factory=dict)


class Subscription:
    """One live reqid. Frames it makes go out through `send`; their numbers run over all of its streams."""

    def __init__(
        self, reqid: int, tag: str | None, filters: list[Filter], settings: Streams, seq_name: str,
        send: Callable[[bytes], None], ts: Callable[[], str],
    ) -> None:  # fmt: skip
        self.reqid, self.tag, self.filters = reqid, tag, filters
        self.seq = 0
        self.started = False
        self.snapshots: dict[str, Snapshot] = {}
        self._settings, self._seq_name, self._send, self._ts = settings, seq_name, send, ts
        self._waiting: list[tuple[str, str, bytes]] = []

    def wants(self, name: str) -> bool:
        return any(wanted.name == name for wanted in self.filters)

    # -- snapshot and pages --------------------------------------------------------------------------------------

    def start(self, book: Book, rng: random.Random) -> None:
        """Sends the first page of every stream (or nothing, by script) and opens the live flow."""
        self.started = True
        for wanted in self.filters:
            rows: list[Entry] | list[Order]
            if wanted.name == "Order":
                rows = self._orders(wanted, book)
                wanted.members |= {order.order_id for order in rows}
            else:
                rows = self._reports(wanted, book)
                rows.sort(key=lambda entry: entry.published_us)
            if self._settings.replay_order == "reversed":
                rows.reverse()
            elif self._settings.replay_order == "shuffled":
                rng.shuffle(rows)
            if self._settings.snapshot == "full" and (rows or self._settings.empty_snapshot):
                snapshot = self.snapshots[wanted.name] = Snapshot(wanted, rows)
                self._page(snapshot, 0, book)

    def _orders(self, wanted: Filter, book: Book) -> list[Order]:
        if wanted.start_us is None and self._settings.no_start_date == "none":
            return []
        only_open = wanted.start_us is None and self._settings.no_start_date == "open"
        if wanted.order_id is not None:
            one = book.orders.get(wanted.order_id)
            found: Iterable[Order] = () if one is None else (one,)
        else:
            found = book.orders.values()
        return [o for o in found if wanted.takes_order(o) and not (only_open and o.closed)]

    def _reports(self, wanted: Filter, book: Book) -> list[Entry]:
        if wanted.start_us is None and self._settings.no_start_date == "none":
            return []
        only_open = wanted.start_us is None and self._settings.no_start_date == "open"
        source = book.history if wanted.order_id is None else book.history_of.get(wanted.order_id, [])
        return [e for e in source if wanted.takes_report(e) and not (only_open and e.ord_status in CLOSED_STATUSES)]

    def _page(self, snapshot: Snapshot, offset: int, book: Book) -> None:
        rows, size = snapshot.rows, self._settings.page_size
        page, end = rows[offset : offset + size], offset + size
        following: str | None = None
        if end < len(rows):
            last = page[-1]
            at_us = last.published_us if isinstance(last, Entry) else last.updated_us
            following = cursor(at_us, end)
            snapshot.cursors[following] = max(end - self._settings.page_overlap, offset + 1)
        if self._settings.repeat_cursor and rows:
            following = next(iter(snapshot.cursors), None) or cursor(0, 0)
            snapshot.cursors[following] = offset
        # Orders are rendered when their page is asked for: a page shows the state of that moment.
        records = [row.record if isinstance(row, Entry) else book.order_record(row) for row in page]
        self._emit(snapshot.wanted.name, records, initial=True, total_count=len(rows), next_cursor=following)
        if following is None:
            self._release()

    def page(self, name: str, after: str, book: Book) -> None:
        """Answers a page request; BadRequest if the stream or cursor is unknown here."""
        snapshot = self.snapshots.get(name)
        if snapshot is None or after not in snapshot.cursors:
            raise BadRequest("unknown stream or cursor")
        offset = snapshot.cursors[after]
        snapshot.cursors = {after: offset} if self._settings.repeat_cursor else {}
        self._page(snapshot, offset, book)

    @property
    def paging(self) -> bool:
        return any(snapshot.cursors for snapshot in self.snapshots.values())

    # -- live ----------------------------------------------------------------------------------------------------

    def report(self, entry: Entry) -> None:
        """A report goes out live if the filter takes it."""
        if self.started and any(w.name == "ExecutionReport" and w.takes_report(entry) for w in self.filters):
            self._live("ExecutionReport", "Update", entry.record)

    def order(self, order: Order, record: bytes) -> None:
        """The order's new state goes out; action Remove when it has left a Statuses filter."""
        for wanted in self.filters if self.started else ():
            if wanted.name != "Order" or not wanted.covers_order(order):
                continue
            if wanted.takes_order(order):
                wanted.members.add(order.order_id)
                self._live("Order", "Update", record)
            elif order.order_id in wanted.members:
                wanted.members.discard(order.order_id)
                self._live("Order", "Remove", record)

    def _live(self, name: str, action: str, record: bytes) -> None:
        self._waiting.append((name, action, record))
        if len(self._waiting) >= self._settings.records_per_frame:
            self.flush()

    def flush(self) -> None:
        """Sends what waits, in order, as many records per frame as the script allows."""
        if self._waiting and not (self.paging and not self._settings.live_while_paging):
            self._release()

    @property
    def waiting(self) -> bool:
        return bool(self._waiting)

    def _release(self) -> None:
        waiting, self._waiting = self._waiting, []
        start = 0
        while start < len(waiting):
            name, action = waiting[start][:2]
            end = start
            while end < len(waiting) and end - start < self._settings.records_per_frame:
                if waiting[end][:2] != (name, action):
                    break
                end += 1
            self._emit(name, [record for _, _, record in waiting[start:end]], action=action)
            start = end

    def _emit(
        self, name: str, records: list[bytes], *, initial: bool = False, action: str = "Update",
        total_count: int | None = None, next_cursor: str | None = None,
    ) -> None:  # fmt: skip
        self.seq += 1
        self._send(
            stream_frame(
                records,
                reqid=self.reqid,
                name=name,
                ts=self._ts(),
                tag=self.tag,
                initial=initial,
                action=action,
                seq=None if self._seq_name == "none" else (self._seq_name, self.seq),
                total_count=total_count,
                next_cursor=next_cursor,
            )
        )
