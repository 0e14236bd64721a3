"""The venue's book: orders, what a step does to them, the report it makes. Pure: time and chance are passed in."""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal
from typing import NamedTuple

import msgspec

from worker.simulator.plays import Step
from worker.simulator.script import Behaviour, CancelItem, Script
from worker.simulator.wire import Report, decimal_text, encode_report, parse_stamp, reason_value, stamp

LOT = Decimal("0.00000001")
ZERO = Decimal(0)


@dataclass(slots=True)
class Order:
    """One order. `status` is its own state; what the venue shows (`ord_status`) puts pending requests first."""

    order_id: str
    cl_ord_id: str
    symbol: str
    side: str
    qty: Decimal
    price: Decimal
    submitted_us: int
    customer_user: str
    rfq_id: str | None = None
    behaviours: tuple[Behaviour, ...] = ()
    implicit: bool = False
    status: str = "New"
    cum_qty: Decimal = ZERO
    open_at_close: Decimal = ZERO
    pending: list[str] = field(default_factory=list)
    replacing: str | None = None
    last_id: str = ""
    exec_type: str = "New"
    updated_us: int = 0
    closed_by: str | None = None
    asked: int = 0
    reports: int = 0
    answers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.last_id = self.last_id or self.cl_ord_id

    @property
    def closed(self) -> bool:
        return self.status != "New"

    @property
    def leaves_qty(self) -> Decimal:
        return ZERO if self.closed else self.qty - self.cum_qty

    @property
    def busy(self) -> bool:
        """Another request on the order is running."""
        return bool(self.pending) or self.replacing is not None

    @property
    def ord_status(self) -> str:
        """FIX precedence (protocol section 5.2): pending requests before closed states before fills."""
        if self.pending:
            return "PendingCancel"
        if self.replacing is not None:
            return "PendingReplace"
        if self.closed:
            return self.status
        return "PartiallyFilled" if self.cum_qty else "New"

    def close(self, status: str, by: str | None) -> None:
        """Ends the order; `by` is the ClOrdID of the request that did it."""
        self.open_at_close = self.qty - self.cum_qty
        self.status, self.closed_by = status, by
        if status != "Filled":
            self.pending.clear()
            self.replacing = None


class Entry(NamedTuple):
    """One published report with what the stream filters ask for; `record` is its JSON."""

    published_us: int
    symbol: str
    order_id: str
    rfq_id: str | None
    ord_status: str
    exec_type: str
    record: bytes


class Book:
    """Orders by both ids, the reports published, the ClOrdIDs in use; all bounded, the oldest go first."""

    def __init__(self, script: Script) -> None:
        self.cancels = script.cancels
        self.orders: dict[str, Order] = {}
        self.by_client_id: dict[str, Order] = {}
        self.open_ids: set[str] = set()
        self.history: list[Entry] = []
        self.history_of: dict[str, list[Entry]] = {}
        self._used_ids: dict[str, None] = {}
        self._closed_ids: deque[str] = deque()
        self._seed, self._max_reports, self._max_closed = script.seed, script.max_reports, script.max_closed
        self._last_us = self._made = 0

    def new_uuid(self) -> str:
        """The next UUID of the book's own: ids of orders and of other people's requests."""
        self._made += 1
        return seeded_uuid(f"{self._seed}/{self._made}")

    def is_used(self, own: str) -> bool:
        """ClOrdIDs are unique over orders, replaces and cancels (protocol section 3.8)."""
        return own in self._used_ids

    def use(self, own: str) -> None:
        self._used_ids[own] = None
        if len(self._used_ids) > 10 * self._max_closed:
            del self._used_ids[next(iter(self._used_ids))]

    def add(self, order: Order) -> None:
        """Takes an order up; ValueError if one of its ids is in use."""
        if order.order_id in self.orders or self.is_used(order.cl_ord_id):
            raise ValueError(f"order {order.order_id} or ClOrdID {order.cl_ord_id} is in use")
        self.orders[order.order_id] = order
        self.by_client_id[order.cl_ord_id] = order
        self.open_ids.add(order.order_id)
        self.use(order.cl_ord_id)

    def _note_closed(self, order: Order) -> None:
        """A closed order stays known until `max_closed` younger ones are."""
        self.open_ids.discard(order.order_id)
        self._closed_ids.append(order.order_id)
        if len(self._closed_ids) > self._max_closed:
            old = self.orders.pop(self._closed_ids.popleft())
            self.by_client_id.pop(old.cl_ord_id, None)

    def find(self, item: CancelItem) -> Order | None:
        """The order a cancel means: OrderID wins over OrigClOrdID; a Symbol that differs finds none, if checked."""
        if item.order_id is not None:
            order = self.orders.get(item.order_id)
        else:
            order = self.by_client_id.get(item.orig_cl_ord_id or "")
        if order is not None and order.symbol != item.symbol:
            if order.implicit:
                order.symbol = item.symbol
            elif self.cancels.check_symbol:
                return None
        return order

    # -- steps ---------------------------------------------------------------------------------------------------

    def play(self, step: Step, order: Order, item: CancelItem, behaviour: Behaviour, now_us: int) -> Report | None:
        """Carries out one step of a cancel and returns its report; None if the step has become impossible."""
        own = item.cl_ord_id
        match step.word:
            case "PendingCancel":
                if order.closed:
                    return None
                order.pending.append(own)
                order.last_id = own
                return self._answer(order, own, "PendingCancel", now_us)
            case "Canceled":
                if order.closed:
                    return self._reject(order, item, behaviour, 0, now_us)
                order.close("Canceled", own)
                order.last_id = own
                return self._answer(order, own, "Canceled", now_us)
            case "CancelRejected":
                return self._reject(order, item, behaviour, step.code, now_us)
            case "Rejected":
                self._withdraw(order, own)
                report = self._answer(order, own, "Rejected", now_us)
                report.ord_status, report.ord_rej_reason = "Rejected", reason_value(99, self._form(behaviour))
                report.text = behaviour.text or "cancel request refused"
                return report
            case "Unknown":
                return self.unknown(item, behaviour, now_us)
            case "Trade" | "Fill":
                part = step.part if step.word == "Trade" else 1.0
                return self.fill(order, part, now_us, behaviour.fill_id)
            case word:
                return self.event(order, word, now_us)

    def _answer(self, order: Order, own: str, exec_type: str, now_us: int) -> Report:
        order.answers[own] = order.exec_type = exec_type
        return self.report(order, exec_type, now_us, cl_ord_id=own, orig_cl_ord_id=order.cl_ord_id)

    def _withdraw(self, order: Order, own: str) -> None:
        if own in order.pending:
            order.pending.remove(own)
        if self.cancels.fill_id == "order" and order.last_id == own:
            order.last_id = order.cl_ord_id

    def _form(self, behaviour: Behaviour) -> str:
        return behaviour.reason_form or self.cancels.reason_form

    def _reject(self, order: Order, item: CancelItem, behaviour: Behaviour, code: int, now_us: int) -> Report:
        self._withdraw(order, item.cl_ord_id)
        kept = order.exec_type
        report = self._answer(order, item.cl_ord_id, "CancelRejected", now_us)
        order.exec_type = kept
        report.cxl_rej_reason = reason_value(code, self._form(behaviour))
        report.ord_status = behaviour.status or report.ord_status
        report.text = behaviour.text
        return report

    def refuse(self, item: CancelItem, order: Order | None, code: int, now_us: int) -> Report:
        """A CancelRejected outside any play: order closed (0), request running (3), id used before (6), role (2)."""
        if order is None:
            report = self.unknown(item, Behaviour(), now_us)
            report.cxl_rej_reason = reason_value(code, self.cancels.reason_form)
            return report
        report = self.report(order, "CancelRejected", now_us, cl_ord_id=item.cl_ord_id, orig_cl_ord_id=order.cl_ord_id)
        report.cxl_rej_reason = reason_value(code, self.cancels.reason_form)
        if code != 6:
            order.answers[item.cl_ord_id] = "CancelRejected"
        return report

    def unknown(self, item: CancelItem, behaviour: Behaviour, now_us: int) -> Report:
        """The reject of a cancel for an order the venue does not know (protocol sections 4.1, 6)."""
        form = behaviour.unknown_id or self.cancels.unknown_id
        order_id = {"NONE": "NONE", "empty": ""}.get(form, item.order_id or "")
        now = stamp(self._tick(now_us))
        base, _, quote = item.symbol.partition("-")
        return Report(
            timestamp=now, symbol=item.symbol, order_id=order_id, cl_ord_id=item.cl_ord_id,
            orig_cl_ord_id=item.orig_cl_ord_id, submit_time=now, exec_id=self.new_uuid(), side="Buy", transact_time=now,
            exec_type="CancelRejected", ord_status=behaviour.status or "Rejected", order_qty="0", ord_type="Limit",
            currency=base, amount_currency=quote or None, text=behaviour.text or "unknown order",
            cxl_rej_reason=reason_value(1, self._form(behaviour)),
        )  # fmt: skip

    def fill(self, order: Order, part: float | Decimal, now_us: int, fill_id: str | None = None) -> Report | None:
        """Fills a part (float, of what is left) or a quantity (Decimal) of an open order."""
        left = order.leaves_qty
        qty = part if isinstance(part, Decimal) else (left * Decimal(repr(part))).quantize(LOT, ROUND_DOWN)
        qty = min(qty, left)
        if qty <= 0:
            return None
        order.cum_qty += qty
        if order.cum_qty == order.qty:
            order.close("Filled", None)
        order.exec_type = "Trade"
        own = (fill_id or self.cancels.fill_id) == "cancel"
        cl_ord_id = order.last_id if own else order.cl_ord_id
        orig = order.cl_ord_id if cl_ord_id != order.cl_ord_id else None
        report = self.report(order, "Trade", now_us, cl_ord_id=cl_ord_id, orig_cl_ord_id=orig)
        report.last_qty, report.last_px = decimal_text(qty), decimal_text(order.price)
        report.last_amt = decimal_text(qty * order.price)
        return report

    def event(self, order: Order, word: str, now_us: int) -> Report | None:
        """Something that befalls an order without our cancel: another hand's request, expiry, or any other word."""
        exec_type, cl_ord_id, orig = word, order.last_id, None
        match word:
            case "CanceledByOther" | "Canceled":
                if order.closed:
                    return None
                cl_ord_id, orig = self._other_cancel(order), order.cl_ord_id
                order.close("Canceled", cl_ord_id)
                order.last_id, exec_type = cl_ord_id, "Canceled"
            case "PendingCancelByOther":
                if order.closed:
                    return None
                cl_ord_id, orig = self.new_uuid(), order.cl_ord_id
                order.pending.append(cl_ord_id)
                order.last_id, exec_type = cl_ord_id, "PendingCancel"
            case "PendingReplace":
                if order.closed:
                    return None
                order.replacing = cl_ord_id = self.new_uuid()
                orig = order.cl_ord_id
            case "Replaced":
                if order.closed or order.replacing is None:
                    return None
                orig, cl_ord_id = order.cl_ord_id, order.replacing
                # The old client id no longer names the order (protocol section 5.1).
                self.by_client_id.pop(orig, None)
                order.cl_ord_id = order.last_id = cl_ord_id
                order.replacing = None
                self.by_client_id[cl_ord_id] = order
                self.use(cl_ord_id)
            case "ReplaceRejected":
                if order.replacing is None:
                    return None
                orig, cl_ord_id, order.replacing = order.cl_ord_id, order.replacing, None
            case "Expired" | "DoneForDay" | "Rejected":
                if order.closed:
                    return None
                order.close(word, None)
                cl_ord_id = order.cl_ord_id
        order.exec_type = exec_type
        return self.report(order, exec_type, now_us, cl_ord_id=cl_ord_id, orig_cl_ord_id=orig)

    def _other_cancel(self, order: Order) -> str:
        """The id of another hand's cancel: the one that is pending, if one is."""
        strangers = [own for own in order.pending if own not in order.answers]
        return strangers[0] if strangers else self.new_uuid()

    # -- reports -------------------------------------------------------------------------------------------------

    def _tick(self, now_us: int) -> int:
        """Publication times strictly grow, whatever the clock does; only the past can be told out of turn."""
        self._last_us = max(self._last_us + 1, now_us)
        return self._last_us

    def report(
        self, order: Order, exec_type: str, now_us: int, *, cl_ord_id: str, orig_cl_ord_id: str | None = None
    ) -> Report:
        """The order as it stands, in one record with a fresh ExecID."""
        order.updated_us = self._tick(now_us)
        order.reports += 1
        if order.closed and order.order_id in self.open_ids:
            self._note_closed(order)
        return self._record(order, exec_type, self._exec_id(order, "r"), cl_ord_id, orig_cl_ord_id)

    def opened(self, order: Order, now_us: int, *, past: bool) -> Report:
        """The report New; in the past it carries the time of submission."""
        report = self.report(order, "New", now_us, cl_ord_id=order.cl_ord_id)
        if past:
            report.timestamp = report.transact_time = stamp(order.submitted_us)
            order.updated_us = order.submitted_us
        return report

    def _exec_id(self, order: Order, kind: str) -> str:
        """From the order and the count of its reports, so that no interleaving with other orders changes it."""
        return seeded_uuid(f"{self._seed}/{order.order_id}/{kind}{order.reports}")

    def order_record(self, order: Order) -> bytes:
        """The JSON of the Order stream's record: the latest state, ClOrdID of the last request (section 4.2)."""
        orig = order.cl_ord_id if order.last_id != order.cl_ord_id else None
        return encode_report(self._record(order, order.exec_type, self._exec_id(order, "o"), order.last_id, orig))

    def _record(self, order: Order, exec_type: str, exec_id: str, cl_ord_id: str, orig: str | None) -> Report:
        base, _, quote = order.symbol.partition("-")
        leaves = order.leaves_qty
        if order.closed and self.cancels.leaves_on_close == "open":
            leaves = order.open_at_close
        now, filled = stamp(order.updated_us), order.cum_qty > 0
        return Report(
            timestamp=now, symbol=order.symbol, order_id=order.order_id, cl_ord_id=cl_ord_id, orig_cl_ord_id=orig,
            submit_time=stamp(order.submitted_us), exec_id=exec_id, side=order.side, transact_time=now,
            exec_type=exec_type, ord_status=order.ord_status, order_qty=decimal_text(order.qty), ord_type="Limit",
            price=decimal_text(order.price), currency=base, amount_currency=quote or None,
            time_in_force="GoodTillCancel", leaves_qty=decimal_text(leaves), cum_qty=decimal_text(order.cum_qty),
            avg_px=decimal_text(order.price) if filled else "0",
            cum_amt=decimal_text(order.cum_qty * order.price) if filled else None,
            customer_user=order.customer_user, rfq_id=order.rfq_id,
        )  # fmt: skip

    def keep(self, report: Report, entry: Entry) -> None:
        """Stores a published report for replays."""
        self.history.append(entry)
        self.history_of.setdefault(report.order_id, []).append(entry)
        if len(self.history) > self._max_reports:
            self._forget_oldest(max(1, self._max_reports // 10))

    def _forget_oldest(self, count: int) -> None:
        for entry in self.history[:count]:
            kept = self.history_of[entry.order_id]
            del kept[0]
            if not kept:
                del self.history_of[entry.order_id]
        del self.history[:count]


def entry_of(report: Report) -> Entry:
    """The stored form of a report."""
    published_us = parse_stamp(report.timestamp)
    return Entry(
        published_us or 0, report.symbol, report.order_id, report.rfq_id, report.ord_status, report.exec_type,
        encode_report(report),
    )  # fmt: skip


def seeded_uuid(text: str) -> str:
    """A UUID, version 4 in shape, made of nothing but the text."""
    raw = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return f"{raw[:8]}-{raw[8:12]}-4{raw[13:16]}-a{raw[17:20]}-{raw[20:]}"


def altered(report: Report) -> Report:
    """The same ExecID with other content: a fault of the venue that a client has to notice."""
    return msgspec.structs.replace(report, text="altered", cum_qty=report.order_qty)
