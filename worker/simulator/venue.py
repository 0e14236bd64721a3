"""The simulated venue with the handles by which a test, a demo or the command line moves it."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable
from decimal import Decimal
from types import TracebackType
from typing import Self

import msgspec

from worker.simulator.book import Order, entry_of
from worker.simulator.floor import Floor, system_clock
from worker.simulator.ledger import CancelSeen, Received, Truth
from worker.simulator.login import Gate
from worker.simulator.script import Behaviour, Chooser, Connect, How, Placed, Rule, Script
from worker.simulator.server import VenueServer
from worker.simulator.session import Session
from worker.simulator.wire import CLOSED_STATUSES, Report, decimal_text


class Simulator(Floor):
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
        super().__init__(msgspec.structs.replace(script, login=login), clock)
        self.desk.on_cancel = on_cancel
        self.gate = Gate(login)
        self.host, self.port = host, port
        self._tls = tls
        self._server = VenueServer(self, self.gate, tls)
        self._tasks: list[asyncio.Task[None]] = []
        self._foreign: deque[Order] = deque()

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
        self.stop_timers()
        await self._server.stop()
        if self.failures and error is None:
            raise ExceptionGroup("the simulator failed", self.failures)

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
        self.announce(self.book.opened(order, now_us, past=age > 0))
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
            self.announce(report)
        return report

    def happen(self, order: Order | str, word: str) -> Report | None:
        """Something befalls the order: CanceledByOther, Expired, PendingReplace, Replaced, Restated, any ExecType."""
        order = self.order(order) if isinstance(order, str) else order
        report = self.book.event(order, word, self.now_us())
        if report is not None:
            self.announce(report)
        return report

    def tell(
        self, order: Order | str, exec_type: str, *, live: bool = True, kept: bool = True, **fields: str
    ) -> Report:
        """Any report about an order, whose state it leaves alone: fields by their names in Report, for example
        `ord_status="Stopped"`, `cl_ord_id=...`, `leaves_qty="0"`. Not `live`: replay only; not `kept`: never
        replayed."""
        order = self.order(order) if isinstance(order, str) else order
        report = self.book.report(order, exec_type, self.now_us(), cl_ord_id=order.last_id)
        report = msgspec.structs.replace(report, **fields)
        entry = entry_of(report)
        if kept:
            self.book.keep(report, entry)
        if live:
            self.send_live(report.order_id, [entry], None)
        return report

    async def emit_foreign(self, count: int) -> None:
        """That many new orders of another user, one report each."""
        for number in range(count):
            self._place_foreign()
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

    def ended_us(self, order_id: str) -> int | None:
        """When the venue first reported the order closed, UTC microseconds; None: it is open, or there is none.

        "Rejected" is said of a request: no order here ends so.
        """
        order = self.book.orders.get(order_id)
        if order is None or not order.closed:
            return None
        told = self.book.history_of.get(order_id, ())
        return min(
            (e.published_us for e in told if e.ord_status in CLOSED_STATUSES and e.ord_status != "Rejected"),
            default=None,
        )

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
            self.always = rule
        else:
            self.coming.extend([rule] * count)

    def accept(self) -> None:
        """Ends `refuse` and `next_connect`."""
        self.always = None
        self.coming.clear()

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
            self.lines[one.number].cut_after_bytes(count, how)

    def stall(self, session: Session | int | None = None) -> None:
        """Half-open: nothing is read or sent on the session; None: on all, and no upgrade is answered."""
        if session is None:
            self._server.running.clear()
        for one in self._chosen(session):
            self.lines[one.number].stall()

    def resume(self, session: Session | int | None = None) -> None:
        """Ends `stall`: what was held goes out, what waited is read."""
        if session is None:
            self._server.running.set()
        for one in self._chosen(session):
            self.lines[one.number].resume()

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
                self.changed.clear()
                await self.changed.wait()

    # -- inside --------------------------------------------------------------------------------------------------

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
        if len(self.book.open_ids) - len(self._foreign) < flow.max_open:
            self.place(symbol=self.rng.choice(flow.symbols))

    def _flow_foreign(self) -> None:
        self._foreign.append(self._place_foreign())
        if len(self._foreign) > self.script.flow.max_open:
            self.happen(self._foreign.popleft(), "CanceledByOther")

    def _place_foreign(self) -> Order:
        return self.place(symbol=self.rng.choice(self.script.flow.symbols), customer_user="another@example.com")


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
