"""The venue's floor: what desk, sessions and sockets share: clock, timers, publication, who is connected."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from decimal import Decimal

from worker.simulator.book import Book, Entry, Order, altered, entry_of
from worker.simulator.desk import Desk, means_unknown
from worker.simulator.ledger import Ledger, Upgrade
from worker.simulator.script import Behaviour, CancelItem, Connect, Script
from worker.simulator.server import SocketLine
from worker.simulator.session import Session
from worker.simulator.wire import Report

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def system_clock() -> int:
    """UTC microseconds since the epoch."""
    return time.time_ns() // 1000


class Floor:
    """Implements the ports that the parts of the venue define; the Simulator adds the handles for a test."""

    def __init__(self, script: Script, clock: Callable[[], int]) -> None:
        self.script = script
        self.rng = random.Random(script.seed)
        self.ledger = Ledger(script.max_ledger)
        self.book = Book(script)
        self.desk = Desk(script, self.book, self.ledger, self.rng, self)
        self.sessions: dict[int, Session] = {}
        self.lines: dict[int, SocketLine] = {}
        self.coming: list[Connect] = []
        self.always: Connect | None = None
        self.changed = asyncio.Event()
        self.failures: list[Exception] = []
        self._clock = clock
        self._attempts = self._session_numbers = 0
        self._timers: set[asyncio.TimerHandle] = set()

    # -- clock and timers ----------------------------------------------------------------------------------------

    def now_us(self) -> int:
        return self._clock() + round(self.script.clock_offset * 1e6)

    def soon(self, call: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(call)

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Calls after a delay; at once, before returning, if there is none."""
        if delay_s <= 0:
            call()
            return

        def due() -> None:
            self._timers.discard(timer)
            try:
                call()
            except Exception as error:  # noqa: BLE001 - told when the block ends
                self.broke(error)

        timer = asyncio.get_running_loop().call_later(delay_s, due)
        self._timers.add(timer)

    def stop_timers(self) -> None:
        """Nothing that is still due happens any more."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    # -- cancels and reports -------------------------------------------------------------------------------------

    def cancel_frame(self, session: Session, reqid: int, elements: list[object]) -> None:
        self.desk.take(session, reqid, elements)
        self.changed.set()

    def publish(self, report: Report, behaviour: Behaviour, origin: Session | None) -> None:
        """A report leaves the venue: into the replay, live to whom it concerns, as the behaviour spoils it."""
        entry = entry_of(report)
        everything = "*" in behaviour.forget
        if not everything and report.exec_type not in behaviour.forget:
            self.book.keep(report, entry)
        lost = everything or report.exec_type in behaviour.forget or behaviour.play == "silent"
        lost = lost or "*" in behaviour.lose or report.exec_type in behaviour.lose
        self.changed.set()
        if lost:
            self.ledger.count("reports_lost")
            return
        copies = [entry]
        if behaviour.duplicates:
            again = entry_of(altered(report)) if behaviour.altered else entry
            copies += [again] * behaviour.duplicates
        self.send_live(report.order_id, copies, origin)

    def send_live(self, order_id: str, copies: list[Entry], origin: Session | None) -> None:
        """Live frames on the sessions they concern: the report, then the order's new state."""
        own = self.script.streams.report_fanout == "own" and origin is not None
        for session in list(self.sessions.values()):
            if not own or session is origin:
                for copy in copies:
                    session.live_report(copy)
        order = self.book.orders.get(order_id)
        if order is not None:
            self._order_live(order)

    def announce(self, report: Report) -> None:
        """A report that no cancel caused: all hear it."""
        self.publish(report, Behaviour(), None)

    def implicit_order(self, item: CancelItem) -> Order | None:
        if not self.script.cancels.auto_orders or (item.order_id or item.orig_cl_ord_id) is None:
            return None
        if (item.order_id or "") in self.book.orders or self.book.is_used(item.orig_cl_ord_id or ""):
            return None
        now_us = self.now_us()
        order = Order(
            order_id=item.order_id or self.book.new_uuid(), cl_ord_id=item.orig_cl_ord_id or self.book.new_uuid(),
            symbol=item.symbol, side="Buy", qty=Decimal("0.5"), price=Decimal("61250.00"),
            submitted_us=now_us - 60_000_000, customer_user=self.script.customer_user, implicit=True,
            updated_us=now_us,
        )  # fmt: skip
        self.book.add(order)
        return order

    def look_up(self, order_id: str, symbol: str | None) -> None:
        """With implicit orders, asking for one brings it about as a cancel does."""
        if not self.script.cancels.auto_orders or order_id in self.book.orders:
            return
        item = CancelItem(symbol or "BTC-USD", "", order_id, None, "")
        if not means_unknown(self.desk.behaviour_by_script(item)[0]):
            self.implicit_order(item)

    def _order_live(self, order: Order) -> None:
        record: bytes | None = None
        for session in list(self.sessions.values()):
            if session.wants("Order"):
                record = record or self.book.order_record(order)
                session.live_order(order, record)

    # -- upgrades and sessions -----------------------------------------------------------------------------------

    def next_attempt(self) -> tuple[int, Connect]:
        self._attempts += 1
        number = self._attempts
        if self.coming:
            return number, self.coming.pop(0)
        if self.always is not None:
            return number, self.always
        for rule in self.script.connect:
            if rule.first <= number and (not rule.last or number <= rule.last):
                return number, rule
        return number, Connect()

    def attempted(self, upgrade: Upgrade) -> None:
        self.ledger.upgrades.append(upgrade)
        self.ledger.count("upgrades" if upgrade.status == 101 else "upgrades_refused")
        self.changed.set()

    def open_session(self, key: str, rule: Connect, line: SocketLine) -> Session:
        self._session_numbers += 1
        number = self._session_numbers
        session_id = "".join(self.rng.choices(ALPHABET, k=13))
        session = self.sessions[number] = Session(number, session_id, key, rule, self, line)
        self.lines[number] = line
        self.changed.set()
        return session

    def session_over(self, session: Session) -> None:
        self.sessions.pop(session.number, None)
        self.lines.pop(session.number, None)
        self.changed.set()

    def session_count(self) -> int:
        return len(self.sessions)

    def touched(self) -> None:
        self.changed.set()

    def broke(self, error: Exception) -> None:
        self.failures.append(error)
