"""What is open in the scope of a mass cancel, by the venue's own list of orders, for a person to look at first."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Final

from worker.cli.log_in import Listener, one_session
from worker.config import Config, Venue
from worker.core.clock import Now
from worker.core.effects import Effect, SendText
from worker.core.reconcile import start_date
from worker.core.session import SessionState, Subscription
from worker.core.snapshot import Count, Scope, statuses_filter
from worker.errors import CancelWorkerError
from worker.venue.pool import Pool
from worker.wire import venue
from worker.wire.timestamp import parse_utc
from worker.wire.venue import FrameError, Record, UnreadFrame

LIST_WITHIN_S: Final = 5.0
"""From the dial to the end of the list: a person waits for it, and each second counts."""


class Open:
    """The open orders in scope by symbol and side."""

    def __init__(self, scope: Scope) -> None:
        self.count = Count()
        self._broken: str | None = None
        self._scope = scope
        self._orders: dict[str, tuple[str, str]] = {}
        self._nameless = 0

    def note(self, record: Record, *, listed: bool) -> None:
        """One Order record, of the list or live.

        What can't be told in or out of scope is shown: better too much than too little.
        """
        closed = venue.status_is_closed(record) or venue.is_filled(record)
        outside = closed or self._scope.covers(record) is False
        if record.order_id is None:
            self._nameless += not outside
            return
        if listed:
            self.count.listed(record.order_id)
        if outside:
            self._orders.pop(record.order_id, None)
        else:
            self._orders[record.order_id] = (record.symbol or "?", record.side or "?")

    def spoil(self, why: str) -> None:
        """Something of the list did not come."""
        self._broken = self._broken or why

    @property
    def lacks(self) -> str | None:
        """Why there may be more; None: that is all."""
        if self._broken is None and self._nameless:
            return f"{self._nameless} records without OrderID"
        return self._broken or self.count.lacks

    def __len__(self) -> int:
        return len(self._orders)

    @property
    def by_symbol_and_side(self) -> list[tuple[str, str, int]]:
        """Symbol, side, how many; the most first."""
        return [(*where, count) for where, count in Counter(self._orders.values()).most_common()]


async def open_orders(config: Config, scope: Scope) -> Open:
    """What the venue lists within some seconds. Never raises for the venue's sake: ``lacks`` tells what went wrong."""
    found = Open(scope)
    reader = _Reader(config.venue, found)
    try:
        async with asyncio.timeout(LIST_WITHIN_S), one_session(config, reader) as pool:
            reader.pool = pool
            await reader.answer
    except TimeoutError:
        found.spoil(f"the venue's list did not end within {LIST_WITHIN_S:g} s")
    except CancelWorkerError as error:
        found.spoil(str(error))
    return found


class _Reader(Listener[None]):
    """Reads the Order stream of one session to its end."""

    def __init__(self, settings: Venue, found: Open) -> None:
        super().__init__()
        self.pool: Pool | None = None
        self._settings = settings
        self._found = found
        self._effects: list[Effect] = []
        self._session: SessionState | None = None
        self._sub: Subscription | None = None

    def session_opened(self, session: int, slot: int) -> None:
        """The venue let us in; nothing is sent before its hello."""
        self._session = SessionState(session, slot, self._settings, self._effects, _now())

    def frames_received(self, session: int, messages: list[bytes]) -> None:
        """The hello, then the list."""
        for message in messages:
            if self._session is not None and not self.answer.done():
                try:
                    self._read(self._session, venue.read_unread_frame(message))
                except FrameError as error:
                    self.fail(str(error))
        self._send()

    def _read(self, state: SessionState, frame: UnreadFrame) -> None:
        if frame.type == "hello" and self._sub is None:
            self._ask(state, frame)
        elif frame.type == "error":
            code = None if frame.error is None else frame.error.code
            self.fail(
                "the venue refused the list" if code is None else f"the venue refused the list: code {code!s:.40}"
            )
        elif self._sub is not None and state.subscription(frame) is self._sub:
            self._take(state, self._sub, frame)

    def _ask(self, state: SessionState, hello: UnreadFrame) -> None:
        settings, now = self._settings, _now()
        try:
            offset_us = parse_utc(hello.ts or "") - now.utc_us
        except ValueError:
            offset_us = 0
        since = start_date(now.utc_us - int(settings.order_horizon * 1e6), offset_us)
        self._sub = state.subscribe(venue.ORDER, since, now, statuses=statuses_filter(settings.statuses_form))

    def _take(self, state: SessionState, sub: Subscription, frame: UnreadFrame) -> None:
        is_first = sub.next_seq is None
        if state.has_gap(sub, frame) or (is_first and (sub.next_seq or 0) > 2):  # the next after 1, were it the first
            self._found.spoil("a frame of the list is missing")
        records = [venue.read_record(raw) for raw in frame.data or ()]
        if frame.initial:
            self._found.count.expect(frame.total_count)
        for record in records:
            self._found.note(record, listed=bool(frame.initial))
        if state.advance(sub, frame, bool(records), _now()):
            if sub.ended == "venue":
                self.answer.set_result(None)
            else:
                self.fail("the venue's list did not come to an end")

    def _send(self) -> None:
        effects, self._effects[:] = list(self._effects), []
        for effect in effects:
            if isinstance(effect, SendText) and self.pool is not None:
                self.pool.send(effect.session, effect.data)
        if self.pool is not None:
            self.pool.flush()


def _now() -> Now:
    return Now(time.monotonic(), time.time_ns() // 1000)
