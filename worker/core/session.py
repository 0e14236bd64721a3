"""One venue session as the core sees it: from the accepted upgrade over ``hello`` and the report stream to its end.

A session may carry cancels once its report stream is live, that is once the replay that begins it has ended (faults
I6). Nothing survives a session: a new one subscribes anew and replays from the last report seen minus an overlap.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from worker.config import Venue
from worker.core.clock import Now
from worker.core.effects import DropSession, Effect, SendText
from worker.wire import venue
from worker.wire.timestamp import format_utc
from worker.wire.venue import Frame, UnreadFrame

if TYPE_CHECKING:
    from msgspec import Raw

    from worker.core.book import Listing
    from worker.core.cancel import CancelState
    from worker.core.reconcile import Query
    from worker.core.snapshot import Snapshot
    from worker.core.sweep import Recovery
    from worker.wire.command import Lane
    from worker.wire.venue import Record

    Asker: TypeAlias = Query | Snapshot | Recovery | Listing
    """Who may ask for a stream beside the session's own."""

PAGE_ARRAYS: Final = {"streams": "data", "data": "streams"}
"""The other name of the array in a ``page`` request, tried once after an error frame (protocol 3.4)."""

Ending = Literal["venue", "timer", "failed"]
"""How a snapshot ended: by a frame without ``next``, by silence, or by an error frame or a cursor that repeats."""


class SentFrame:
    """One ``OrderCancelRequest`` on its way: which cancels an error frame with its reqid would concern.

    ``unanswered`` counts those that still wait on this send; ``lane`` is the lane whose bound they use.
    """

    __slots__ = ("cancels", "lane", "reqid", "session", "unanswered")

    def __init__(self, session: SessionState, reqid: int, lane: Lane, cancels: list[CancelState]) -> None:
        self.session = session
        self.reqid = reqid
        self.lane = lane
        self.cancels = cancels
        self.unanswered = len(cancels)


class Subscription:
    """One stream of a session (protocol 3.2 to 3.4). ``query`` is who asked; None: the session's own report stream.

    ``records`` collects what the snapshot said of cancels in flight, to be judged in the order of their Timestamps.
    """

    __slots__ = (
        "begun",
        "cursors",
        "ended",
        "exec_ids",
        "next_seq",
        "page_array",
        "page_retried",
        "pages",
        "query",
        "quiet_due",
        "records",
        "reqid",
        "start_date",
        "stream",
    )

    def __init__(
        self, reqid: int, stream: str, start_date: str, page_array: str, query: Asker | None, begun: float
    ) -> None:
        self.begun = begun
        self.reqid = reqid
        self.stream = stream
        self.start_date = start_date
        self.query = query
        self.page_array = page_array
        self.page_retried = False
        self.pages = 0
        self.cursors: str | None = None
        self.exec_ids: set[str] = set()
        self.next_seq: int | None = None
        self.quiet_due = 0.0
        self.ended: Ending | None = None
        self.records: list[tuple[Record, Raw]] = []


class SessionState:
    """A session, from accepted upgrade to end. ``clock_offset_us`` is the venue's clock minus ours, by ``hello``.

    ``missed_at``: since when the report stream lacks something and has to be read anew, which it may be from
    ``reread_from`` on; both monotonic seconds.
    """

    __slots__ = (
        "_effects",
        "_ended_reports",
        "_greeted",
        "_next_reqid",
        "_settings",
        "clock_offset_us",
        "closing",
        "frames",
        "heard_at",
        "hello_due",
        "inflight",
        "main",
        "missed_at",
        "number",
        "opened_at",
        "ping_reqid",
        "pinged_at",
        "ready",
        "ready_since",
        "reread_from",
        "session_id",
        "slot",
        "subscriptions",
    )

    def __init__(self, number: int, slot: int, settings: Venue, effects: list[Effect], now: Now) -> None:
        self.number = number
        self.slot = slot
        self._settings = settings
        self._effects = effects
        self._next_reqid = 1
        self.session_id: str | None = None
        self.clock_offset_us = 0
        self._greeted = now
        self.opened_at = now.mono
        self.hello_due: float | None = now.mono + settings.hello_timeout
        self.heard_at = now.mono
        self.pinged_at: float | None = None
        self.ping_reqid = 0
        self.main: Subscription | None = None
        self.ready = False
        self.closing = False
        self.ready_since = 0.0
        self.missed_at: float | None = None
        self.reread_from = -inf
        self.subscriptions: dict[int, Subscription] = {}
        self._ended_reports: deque[int] = deque(maxlen=64)  # reqids of look-ups
        self.frames: dict[int, SentFrame] = {}
        self.inflight = 0

    @property
    def carries_reports(self) -> bool:
        """Whether this session subscribes the report stream (``venue.report_sessions``)."""
        return self._settings.report_sessions == 0 or self.slot < self._settings.report_sessions

    def greeted(self, venue_us: int | None, now: Now) -> None:
        """``hello`` came; ``venue_us`` is its time of day, UTC microseconds, if it could be read."""
        self._greeted = now
        if venue_us is not None:
            self.clock_offset_us = venue_us - now.utc_us

    def unstepped(self, now: Now) -> Now:
        """``now`` by the wall clock that ``clock_offset_us`` was measured against: ours may have stepped since."""
        return Now(now.mono, self._greeted.utc_us + int((now.mono - self._greeted.mono) * 1e6))

    def take_reqid(self) -> int:
        """A request id that this session never used; counts over all kinds of message (protocol section 2)."""
        reqid = self._next_reqid
        self._next_reqid = reqid + 1
        return reqid

    def send(self, data: bytes) -> None:
        """Send one text message."""
        self._effects.append(SendText(self.number, data))

    def drop(self, reason: str) -> None:
        """Ask for the session's end; ``SessionLost`` follows. Until then its reports count, but nothing is sent."""
        self.closing = True
        self.ready = False
        self._effects.append(DropSession(self.number, reason))

    # -- streams

    def subscribe(
        self,
        stream: str,
        start_date: str,
        now: Now,
        *,
        query: Asker | None = None,
        order_id: str | None = None,
        symbol: str | None = None,
        statuses: list[str] | str | None = None,
    ) -> Subscription:
        """Subscribe one stream under a reqid of its own."""
        sub = Subscription(self.take_reqid(), stream, start_date, self._settings.page_array, query, now.mono)
        sub.quiet_due = now.mono + self._settings.snapshot_timeout
        self.subscriptions[sub.reqid] = sub
        extra = self._settings.extra_stream_fields or None
        self.send(
            venue.subscribe(
                sub.reqid, stream, start_date, order_id=order_id, symbol=symbol, statuses=statuses, extra=extra
            )
        )
        return sub

    def subscribe_reports(self, start_date: str, now: Now) -> None:
        """Begin, or begin again, the session's own report stream; not ready until its replay has ended."""
        if self.main is not None:
            self.end(self.main)
        self.main = self.subscribe(venue.EXECUTION_REPORT, start_date, now)

    def end(self, sub: Subscription) -> None:
        """End a subscription; frames of its reqid that are still under way are dropped, but for reports."""
        if self.subscriptions.pop(sub.reqid, None) is not None:
            self.send(venue.end_stream(sub.reqid))
            if sub.stream == venue.EXECUTION_REPORT and sub is not self.main:
                self._ended_reports.append(sub.reqid)

    def tells_reports_still(self, frame: Frame | UnreadFrame) -> bool:
        """Whether a frame tells live reports on a stream that was ended, beside the session's own, which goes on."""
        return frame.reqid in self._ended_reports and frame.type == venue.EXECUTION_REPORT and not frame.initial

    def subscription(self, frame: Frame | UnreadFrame) -> Subscription | None:
        """Whose frame it is; one without a reqid is taken for the report stream's."""
        return self.main if frame.reqid is None else self.subscriptions.get(frame.reqid)

    def has_gap(self, sub: Subscription, frame: Frame | UnreadFrame) -> bool:
        """Whether a frame of the stream went missing before this one (protocol section 8, rule 7).

        If it is the first, the answer to a question is spoiled. The report stream is not begun again for that: with a
        venue that numbers otherwise no session would ever be ready.
        """
        seq = frame.seq_num if frame.seq_num is not None else frame.seq
        if seq is None:
            return False
        expected, sub.next_seq = sub.next_seq, seq + 1
        if expected is None and seq > 1 and sub.query is not None:
            sub.query.spoil("its first frame went missing")
        return expected is not None and seq > expected

    def advance(self, sub: Subscription, frame: Frame | UnreadFrame, news: bool, now: Now) -> bool:
        """Follow the snapshot after one of its frames: ask for the next page, or note that it ended and return True.

        ``news`` says whether the frame held a record not seen on this stream before; a cursor that repeats without
        news ends the paging, as does ``venue.max_pages`` (protocol 3.4).
        """
        if frame.initial or frame.next:  # a live frame says nothing of how far the snapshot is
            sub.quiet_due = now.mono + self._settings.snapshot_timeout
        if frame.next is None or frame.next == "":
            if frame.initial:
                sub.ended = "venue"
            return sub.ended is not None
        repeats = frame.next == sub.cursors and not news
        if repeats or sub.pages >= self._settings.max_pages:
            sub.ended = "failed"
            return True
        sub.cursors = frame.next
        sub.pages += 1
        self._ask_page(sub)
        return False

    def _ask_page(self, sub: Subscription) -> None:
        assert sub.cursors is not None
        self.send(venue.page(sub.reqid, sub.stream, sub.cursors, sub.page_array))

    def retry_page(self, sub: Subscription, now: Now) -> bool:
        """After an error frame for a stream: try the page once under the array's other name. False: nothing to try."""
        if sub.cursors is None or sub.ended is not None or sub.page_retried:
            return False
        sub.page_retried = True
        sub.page_array = PAGE_ARRAYS[sub.page_array]
        sub.quiet_due = now.mono + self._settings.snapshot_timeout
        self._ask_page(sub)
        return True

    # -- life

    def tick(self, now: Now) -> list[Subscription]:
        """Ping a quiet line, drop a dead one, and return the subscriptions whose snapshot fell silent."""
        mono = now.mono
        if self.closing:
            return []
        if self.hello_due is not None:
            if mono >= self.hello_due:
                self.hello_due = None
                self.drop(f"no hello within {self._settings.hello_timeout:g} s")
            return []
        if self.pinged_at is not None:
            if mono >= self.pinged_at + self._settings.ping_timeout:
                self.drop(f"no frame within {self._settings.ping_timeout:g} s of a Ping")
                return []
        elif mono >= self.heard_at + self._settings.ping_interval:
            self.pinged_at = mono
            self.ping_reqid = self.take_reqid()
            self.send(venue.ping(self.ping_reqid, format_utc(now.utc_us)))
        return [s for s in self.subscriptions.values() if s.ended is None and mono >= s.quiet_due]

    def next_due(self) -> float:
        """Monotonic seconds of the next thing ``tick`` would do; infinity for a session that is being dropped."""
        if self.closing:
            return inf
        if self.hello_due is not None:
            return self.hello_due
        if self.pinged_at is not None:
            due = self.pinged_at + self._settings.ping_timeout
        else:
            due = self.heard_at + self._settings.ping_interval
        if self.missed_at is not None and self.reread_from < due:
            due = self.reread_from
        for sub in self.subscriptions.values():
            if sub.ended is None and sub.quiet_due < due:
                due = sub.quiet_due
        return due
