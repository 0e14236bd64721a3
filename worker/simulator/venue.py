"""The simulated venue as one object: book, desk, sessions, timers, and the handles by which a test moves it."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Callable, Iterable
from decimal import Decimal
from types import TracebackType
from typing import Self

import msgspec

from worker.simulator.book import Book, Order, altered, entry_of
from worker.simulator.desk import Desk, means_unknown
from worker.simulator.ledger import CancelSeen, Ledger, Received, Truth, Upgrade
from worker.simulator.login import Gate
from worker.simulator.script import Behaviour, CancelItem, Chooser, Connect, How, Placed, Rule, Script
from worker.simulator.server import SocketLine, VenueServer
from worker.simulator.session import Session
from worker.simulator.wire import Report, decimal_text

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def system_clock() -> int:
    """UTC microseconds since the epoch."""
    return time.time_ns() // 1000


class Simulator:
    """The venue of one script, on one port, for as long as the `async with` block lasts.

    `key`, `secret` replace those of the script; `clock` gives UTC microseconds; `on_cancel` picks the behaviour of a
    cancel (None: as scripted); `tls` makes it wss. All methods but `until` and `emit_foreign` act at once and belong
    to the loop's thread.
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        key: str | None = None,
        secret: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Callable[[], int] = system_clock,
        on_cancel: Chooser | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        script = script or Script()
        login = msgspec.structs.replace(script.login, key=key or script.login.key, secret=secret or script.login.secret)
        self.script = msgspec.structs.replace(script, login=login)
        self.rng = random.Random(script.seed)
        self.ledger = Ledger(script.max_ledger)
        self.book = Book(self.script)
        self.desk = Desk(self.script, self.book, self.ledger, self.rng, self)
        self.desk.on_cancel = on_cancel
        self.gate = Gate(login)
        self.sessions: dict[int, Session] = {}
        self.host, self.port = host, port
        self._clock, self._tls = clock, tls
        self._lines: dict[int, SocketLine] = {}
        self._server = VenueServer(self, self.gate, tls)
        self._attempts = self._session_numbers = 0
        self._coming: list[Connect] = []
        self._always: Connect | None = None
        self._timers: set[asyncio.TimerHandle] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self._failures: list[Exception] = []

    # -- life ----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Listens; the script's orders stand in the book. OSError if the port is taken."""
        for placed in self.script.orders:
            self._place_scripted(placed)
        self.host, self.port = await self._server.start(self.host, self.port)
        flow = self.script.flow
        for rate, step in ((flow.order_rate, self._flow_order), (flow.foreign_rate, self._flow_foreign)):
            if rate:
                self._tasks.append(asyncio.create_task(self._flow(rate, step)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for timer in self._timers:
            timer.cancel()
        await self._server.stop()
        if self._failures and error is None:
            raise ExceptionGroup("the simulator failed", self._failures)

    @property
    def url(self) -> str:
        """The URL a client dials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self._tls else 'ws'}://{host}:{self.port}{self.script.login.path}"

    # -- orders --------------------------------------------------------------------------------------------------

    def place(
        self,
        *,
        symbol: str = "BTC-USD",
        qty: str = "0.5",
        price: str = "61250.00",
        side: str = "Buy",
        order_id: str | None = None,
        cl_ord_id: str | None = None,
        rfq_id: str | None = None,
        customer_user: str | None = None,
        age: float = 0.0,
        behaviour: Behaviour | Iterable[Behaviour] = (),
    ) -> Order:
        """An order comes to stand in the book and its report New goes out. `age`: seconds since it was submitted.
        `behaviour`: for its cancels in turn, the last for all later ones. ValueError if an id is in use."""
        now_us = self.now_us()
        order = Order(
            order_id=order_id or self.book.new_uuid(), cl_ord_id=cl_ord_id or self.book.new_uuid(), symbol=symbol,
            side=side, qty=Decimal(qty), price=Decimal(price), submitted_us=now_us - round(age * 1e6),
            customer_user=customer_user or self.script.customer_user, rfq_id=rfq_id,
            behaviours=(behaviour,) if isinstance(behaviour, Behaviour) else tuple(behaviour),
        )  # fmt: skip
        self.book.add(order)
        self._order_event(order, self.book.opened(order, now_us, past=age > 0))
        return order

    def place_later(self, delay: float, **terms: object) -> str:
        """An order that appears after `delay` seconds (terms as in `place`); its OrderID, known before."""
        order_id = str(terms.setdefault("order_id", self.book.new_uuid()))
        self.later(delay, lambda: self._place_terms(terms))
        return order_id

    def _place_terms(self, terms: dict[str, object]) -> None:
        self.place(**terms)  # type: ignore[arg-type]  # the caller's keywords, checked by place itself

    def order(self, order_id: str) -> Order:
        """The order; KeyError if the book has none of that id."""
        return self.book.orders[order_id]

    def fill(self, order: Order | str, qty: str | None = None) -> Report | None:
        """Fills a quantity (None: all that is left); None if nothing was left."""
        order = self.order(order) if isinstance(order, str) else order
        amount = order.leaves_qty if qty is None else Decimal(qty)
        report = self.book.fill(order, amount, self.now_us())
        if report is not None:
            self._order_event(order, report)
        return report

    def happen(self, order: Order | str, word: str) -> Report | None:
        """Something befalls the order: CanceledByOther, Expired, PendingReplace, Replaced, Restated, any ExecType."""
        order = self.order(order) if isinstance(order, str) else order
        report = self.book.event(order, word, self.now_us())
        if report is not None:
            self._order_event(order, report)
        return report

    async def emit_foreign(self, count: int) -> None:
        """That many new orders of another user, one report each."""
        for number in range(count):
            self._flow_foreign()
            if number % 200 == 199:
                await asyncio.sleep(0)

    def truth(self) -> dict[str, Truth]:
        """How every order stands, by OrderID."""
        return {
            order.order_id: Truth(
                order.order_id,
                order.symbol,
                order.ord_status,
                decimal_text(order.cum_qty),
                decimal_text(order.leaves_qty),
                order.closed_by,
                dict(order.answers),
            )
            for order in self.book.orders.values()
        }

    @property
    def on_cancel(self) -> Chooser | None:
        """Picks the behaviour of a cancel whose order has none of its own; None leaves it to the script."""
        return self.desk.on_cancel

    @on_cancel.setter
    def on_cancel(self, chooser: Chooser | None) -> None:
        self.desk.on_cancel = chooser

    # -- behaviour -----------------------------------------------------------------------------------------------

    def rule(self, behaviour: Behaviour, *, symbol: str = "*", order_id: str = "*", cl_ord_id: str = "*") -> None:
        """Adds a rule behind those of the script."""
        self.desk.rules.append(Rule(behaviour=behaviour, symbol=symbol, order_id=order_id, cl_ord_id=cl_ord_id))

    def refuse(self, count: int, status: int, *, retry_after: str | None = None, location: str | None = None) -> None:
        """The next `count` upgrades are answered with that HTTP status (-1: never answered); count -1: all, until
        `accept`."""
        self.next_connect(Connect(status=status, retry_after=retry_after, location=location), count)

    def next_connect(self, rule: Connect, count: int = 1) -> None:
        """The next `count` upgrades go by this rule, before those of the script; count -1: all, until `accept`."""
        if count < 0:
            self._always = rule
        else:
            self._coming.extend([rule] * count)

    def accept(self) -> None:
        """Ends `refuse` and `next_connect`."""
        self._always = None
        self._coming.clear()

    # -- sessions ------------------------------------------------------------------------------------------------

    def _chosen(self, session: Session | int | None) -> list[Session]:
        if session is None:
            return list(self.sessions.values())
        return [self.sessions[session] if isinstance(session, int) else session]

    def cut(self, session: Session | int | None = None, how: How = "reset") -> None:
        """Ends one session, or all of them: `reset`, `drop`, or a close code."""
        for one in self._chosen(session):
            one.end(how)

    def cut_after_bytes(self, count: int, session: Session | int | None = None, how: How = "reset") -> None:
        """Ends the session after that many further bytes of the venue's."""
        for one in self._chosen(session):
            self._lines[one.number].cut_after_bytes(count, how)

    def stall(self, session: Session | int | None = None) -> None:
        """Half-open: nothing is read or sent on the session; None: on all, and no upgrade is answered."""
        if session is None:
            self._server.running.clear()
        for one in self._chosen(session):
            self._lines[one.number].stall()

    def resume(self, session: Session | int | None = None) -> None:
        """Ends `stall`: what was held goes out, what waited is read."""
        if session is None:
            self._server.running.set()
        for one in self._chosen(session):
            self._lines[one.number].resume()

    def send_raw(self, frame: bytes, session: Session | int | None = None) -> None:
        """Sends any text frame, as it is."""
        for one in self._chosen(session):
            one.send(frame)

    def skip_seq(self, count: int = 1, session: Session | int | None = None) -> None:
        """The next stream frames leave a gap in their numbers."""
        for one in self._chosen(session):
            for subscription in one.subscriptions.values():
                subscription.seq += count

    # -- what came -----------------------------------------------------------------------------------------------

    @property
    def received(self) -> list[Received]:
        """All text frames that came, oldest first."""
        return list(self.ledger.frames)

    @property
    def cancels(self) -> list[CancelSeen]:
        """All cancels that came, oldest first, with what was done with each."""
        return list(self.ledger.cancels)

    def sends_of(self, order_id: str) -> list[CancelSeen]:
        """The cancels that named this OrderID, or the order's client id."""
        order = self.book.orders.get(order_id)
        client_id = order.cl_ord_id if order is not None else None
        return [
            seen
            for seen in self.ledger.cancels
            if seen.order_id == order_id or (client_id is not None and seen.orig_cl_ord_id == client_id)
        ]

    async def until(self, condition: Callable[[], object], within: float = 5.0) -> None:
        """Waits for a condition on the venue; looked at after every frame, upgrade, report and lost session.
        TimeoutError after `within` seconds."""
        async with asyncio.timeout(within):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    # -- ports of the parts --------------------------------------------------------------------------------------

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

    def cancel_frame(self, session: Session, reqid: int, elements: list[object]) -> None:
        self.desk.take(session, reqid, elements)
        self._changed.set()

    def publish(self, report: Report, behaviour: Behaviour, origin: Session | None) -> None:
        """A report leaves the venue: into the replay, live to whom it concerns, as the behaviour spoils it."""
        entry = entry_of(report)
        everything = "*" in behaviour.forget
        if not everything and report.exec_type not in behaviour.forget:
            self.book.keep(report, entry)
        lost = everything or report.exec_type in behaviour.forget or behaviour.play == "silent"
        lost = lost or "*" in behaviour.lose or report.exec_type in behaviour.lose
        self._changed.set()
        if lost:
            self.ledger.count("reports_lost")
            return
        copies = [entry]
        if behaviour.duplicates:
            again = entry_of(altered(report)) if behaviour.altered else entry
            copies += [again] * behaviour.duplicates
        own = self.script.streams.report_fanout == "own" and origin is not None
        for session in list(self.sessions.values()):
            if not own or session is origin:
                for copy in copies:
                    session.live_report(copy)
        order = self.book.orders.get(report.order_id)
        if order is not None:
            self._order_live(order)

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

    def next_attempt(self) -> tuple[int, Connect]:
        self._attempts += 1
        number = self._attempts
        if self._coming:
            return number, self._coming.pop(0)
        if self._always is not None:
            return number, self._always
        for rule in self.script.connect:
            if rule.first <= number and (not rule.last or number <= rule.last):
                return number, rule
        return number, Connect()

    def attempted(self, upgrade: Upgrade) -> None:
        self.ledger.upgrades.append(upgrade)
        self.ledger.count("upgrades" if upgrade.status == 101 else "upgrades_refused")
        self._changed.set()

    def open_session(self, key: str, rule: Connect, line: SocketLine) -> Session:
        self._session_numbers += 1
        number = self._session_numbers
        session_id = "".join(self.rng.choices(ALPHABET, k=13))
        session = self.sessions[number] = Session(number, session_id, key, rule, self, line)
        self._lines[number] = line
        self._changed.set()
        return session

    def session_over(self, session: Session) -> None:
        self.sessions.pop(session.number, None)
        self._lines.pop(session.number, None)
        self._changed.set()

    def session_count(self) -> int:
        return len(self.sessions)

    def touched(self) -> None:
        self._changed.set()

    def broke(self, error: Exception) -> None:
        self._failures.append(error)

    # -- inside --------------------------------------------------------------------------------------------------

    def _order_event(self, order: Order, report: Report) -> None:
        self.publish(report, Behaviour(), None)

    def _order_live(self, order: Order) -> None:
        record: bytes | None = None
        for session in list(self.sessions.values()):
            if session.wants("Order"):
                record = record or self.book.order_record(order)
                session.live_order(order, record)

    def _place_scripted(self, placed: Placed) -> None:
        for number in range(placed.count):
            suffix = f"-{number + 1}" if placed.count > 1 else ""
            terms: dict[str, object] = {
                name: getattr(placed, name) for name in ("symbol", "qty", "price", "side", "rfq_id", "age", "behaviour")
            }
            terms["customer_user"] = placed.customer_user
            terms["order_id"] = placed.order_id and placed.order_id + suffix
            terms["cl_ord_id"] = placed.cl_ord_id and placed.cl_ord_id + suffix
            self.later(placed.after, lambda terms=terms: self._place_terms(terms))  # type: ignore[misc]

    async def _flow(self, rate: float, step: Callable[[], None]) -> None:
        started, done = time.monotonic(), 0
        while True:
            due = int((time.monotonic() - started) * rate)
            for _ in range(due - done):
                step()
            done = due
            await asyncio.sleep(max(0.005, min(1.0, 1 / rate)))

    def _flow_order(self) -> None:
        flow = self.script.flow
        if len(self.book.open_ids) < flow.max_open:
            self.place(symbol=self.rng.choice(flow.symbols))

    def _flow_foreign(self) -> None:
        self.place(symbol=self.rng.choice(self.script.flow.symbols), customer_user="another@example.com")


async def serve(
    host: str,
    port: int,
    script: Script,
    *,
    ready: Callable[[Simulator], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Runs the venue until `stop` is set (None: until cancelled). `ready` is called once it listens."""
    async with Simulator(script, host=host, port=port) as venue:
        if ready is not None:
            ready(venue)
        await (stop or asyncio.Event()).wait()
