"""The sessions that are open, what their frames mean, and which of them may carry the next cancels (faults I6)."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Final

from msgspec import Raw

from worker.config import Venue
from worker.core.book import BookReader, Listing, OpenOrders
from worker.core.cancel import CancelState, Phase
from worker.core.clock import Now
from worker.core.desk import Desk, exec_id_of
from worker.core.effects import Effect, Note, SessionIsReady
from worker.core.facts import SessionLost, SessionOpened
from worker.core.lookups import Lookups
from worker.core.reconcile import Query, start_date
from worker.core.session import SentFrame, SessionState, Subscription
from worker.core.snapshot import Snapshot
from worker.core.stats import Stats
from worker.core.sweep import Recovery
from worker.core.sweeps import Sweeps
from worker.wire import venue
from worker.wire.event import CodeError
from worker.wire.timestamp import format_utc, parse_utc
from worker.wire.venue import EXECUTION_REPORT, STATUSES, Frame, FrameError, Record, UnreadFrame, read_frame

REREAD_AT_MOST_EVERY_S: Final = 5.0
"""After frames that are missing or unreadable a session reads its report stream anew, but no more often than this."""

AnyFrame = Frame | UnreadFrame
Source = bytes | list[Raw]
"""Where a record's own bytes are had, should they be needed: the message, or its records already taken apart."""
Told = tuple[Sequence[Record], Source]
"""The records of one frame, and where their own bytes are had."""

LONGEST_NOTED: Final = 500
"""Characters of what an error frame says that are noted; it may hold megabytes."""

WORDS_MET: Final = 64
"""So many different unknown words of the venue are logged, each once."""


class Sessions:
    """All open sessions by number, and the frames they bring."""

    def __init__(
        self,
        settings: Venue,
        desk: Desk,
        lookups: Lookups,
        sweeps: Sweeps,
        book: OpenOrders,
        reader: BookReader,
        effects: list[Effect],
        stats: Stats,
    ) -> None:
        self._sweeps = sweeps
        self._book = book
        self._reader = reader
        self._settings = settings
        self._desk = desk
        self._lookups = lookups
        self._effects = effects
        self._stats = stats
        self._sessions: dict[int, SessionState] = {}
        self._find = desk.inflight.find
        self._known_ids = desk.inflight.known_ids()
        self._counts = stats.reports
        self._last_report_at: str | None = None
        self._last_stamp = ""
        self._words_met: set[tuple[str, str | None]] = set()
        self._lost_with: list[CancelState] = []
        self.ready = False
        self.last_ready_mono: float | None = None
        self.last_loss: str | None = None

    def all(self) -> list[SessionState]:
        """Every open session, oldest first."""
        return list(self._sessions.values())

    def pick(self) -> SessionState | None:
        """The session for the next frame: the ready one with the fewest cancels out; None if none may send."""
        if not self.ready:
            return None
        best = None
        for session in self._sessions.values():
            if session.ready and (best is None or session.inflight < best.inflight):
                best = session
        return best

    # -- facts

    def opened(self, fact: SessionOpened, now: Now) -> None:
        """The upgrade succeeded; ``hello`` comes next, and nothing is sent before it (protocol 3.1)."""
        self._sessions[fact.session] = SessionState(fact.session, fact.slot, self._settings, self._effects, now)

    def lost(self, fact: SessionLost, now: Now) -> None:
        """The session ended: what was sent on it and is not final is doubtful."""
        session = self._sessions.pop(fact.session, None)
        if session is None:
            return
        was_ready, session.ready = session.ready, False
        self.last_loss = fact.reason
        self._stats.session_losses += 1
        if session.main is not None and session.main.records:
            self._judge(session.main, session, now)  # the venue's word counts, though its stream broke off
        session.subscriptions.clear()  # who asked and what was asked would keep each other alive
        self._lookups.session_lost(session, now)
        self._sweeps.session_lost(session, now)
        self._reader.session_lost(session, now)
        frames = list(session.frames.values())
        self._lost_with = self._not_ended_of_lost() + _unanswered(frames)
        if session.carries_reports:
            frames += [f for s in self._sessions.values() if not s.carries_reports for f in s.frames.values()]
        for frame in frames:
            self._doubt_frame(frame, now, on_lost_session=frame.session is session)
        self._refresh(now)
        if (other := self.pick()) is not None:
            self._reader.session_ready(other, now)
        self._effects.append(
            Note(
                "session_lost",
                "warning",
                {"session_id": session.session_id, "slot": session.slot, "reason": fact.reason, "was_ready": was_ready},
            )
        )

    def _doubt_frame(self, frame: SentFrame, now: Now, *, on_lost_session: bool) -> None:
        for cancel in list(frame.cancels):
            if cancel.frame is not frame:
                continue
            if self._settings.report_fanout == "all" and self._unbroken_since(cancel.sent_mono):
                # Its reports come on another session, whose stream has not been interrupted since the send.
                if on_lost_session:
                    self._desk.detach(cancel)
                continue
            if on_lost_session and cancel.sent == "yes" and cancel.phase is Phase.SENT:
                cancel.sent = "maybe"
            self._desk.doubt(cancel, "session_lost", now)

    def _unbroken_since(self, mono: float) -> bool:
        return any(s.ready and s.carries_reports and s.ready_since <= mono for s in self._sessions.values())

    def received(self, number: int, messages: list[bytes], now: Now) -> bool:
        """Text messages of the venue, in order. Returns whether ``ready`` has changed."""
        session = self._sessions.get(number)
        if session is None:
            return False
        self._stats.frames_received += len(messages)
        session.heard_at = now.mono
        session.pinged_at = None
        was_ready, main = self.ready, session.main
        live: list[Told] = []
        for message in messages:
            try:
                frame = read_frame(message)
            except FrameError as e:
                self._reports(session, live, now)
                live = []
                self._read_apart(session, message, str(e), now)
                main = session.main
                continue
            seq = frame.seq_num
            if (
                main is not None
                and seq == main.next_seq
                and frame.reqid == main.reqid
                and seq is not None
                and main.ended is not None
                and frame.type == EXECUTION_REPORT
            ):  # the live report stream goes on: nearly all that ever comes
                main.next_seq = seq + 1
                if frame.data:
                    live.append((frame.data, message))
                continue
            self._reports(session, live, now)
            live = []
            try:
                self._other_frame(session, frame, frame.data, message, now)
            except FrameError as e:  # a record's own bytes could not be had
                self._unreadable(session, str(e), now)
            main = session.main
        self._reports(session, live, now)
        return self.ready is not was_ready

    def _other_frame(
        self, session: SessionState, frame: AnyFrame, records: Sequence[Record] | None, source: Source, now: Now
    ) -> None:
        if frame.type in (EXECUTION_REPORT, venue.ORDER):
            self._stream_frame(session, frame, records, source, now)
        elif frame.type == "hello":
            self._greeted(session, frame, now)
        elif frame.type == "error":
            self._error(session, frame, now)

    def _read_apart(self, session: SessionState, message: bytes, reason: str, now: Now) -> None:
        """A frame in which something is not as usual: a record that can't be read harms no other (faults I10)."""
        try:
            frame = venue.read_unread_frame(message)
        except FrameError:
            self._unreadable(session, reason, now)
            return
        sub = session.subscription(frame)
        records: list[Record] = []
        raws: list[Raw] = []
        for raw in frame.data or () if frame.type in (EXECUTION_REPORT, venue.ORDER) else ():
            try:
                records.append(venue.read_record(raw))
                raws.append(raw)
            except FrameError as e:
                self._stats.bad_records += 1
                if sub is not None and sub.query is not None:
                    sub.query.spoil(str(e))
                self._effects.append(
                    Note("bad_record", "warning", {"session_id": session.session_id, "reason": str(e)})
                )
        self._other_frame(session, frame, records, raws, now)

    def _unreadable(self, session: SessionState, reason: str, now: Now) -> None:
        self._stats.bad_frames += 1
        self._effects.append(Note("bad_frame", "warning", {"session_id": session.session_id, "reason": reason}))
        for sub in session.subscriptions.values():
            if sub.query is not None:
                sub.query.spoil(reason)  # it may have been part of the answer
        if session.ready and session.carries_reports:
            self._read_anew(session, now)

    def _greeted(self, session: SessionState, frame: AnyFrame, now: Now) -> None:
        if session.hello_due is None:
            return
        session.hello_due = None
        session.session_id = frame.session_id
        venue_us: int | None = None
        if frame.ts is not None:
            try:
                venue_us = parse_utc(frame.ts)
            except ValueError:
                self._effects.append(Note("bad_hello_ts", "warning", {"session_id": session.session_id}))
        session.greeted(venue_us, now)
        self._stats.clock_offset_s = session.clock_offset_us / 1e6
        if session.carries_reports:
            self._subscribe_reports(session, now)
        else:
            self._is_ready(session, now)

    def _read_anew(self, session: SessionState, now: Now) -> bool:
        """Something of the report stream was missed: it is read anew, at once or when the time has come."""
        if session.missed_at is None:
            session.missed_at = now.mono
        if now.mono < session.reread_from:
            return False
        session.reread_from = now.mono + REREAD_AT_MOST_EVERY_S
        self._subscribe_reports(session, now)
        return True

    def _subscribe_reports(self, session: SessionState, now: Now) -> None:
        """Read the report stream from the last report, or the earliest send not settled, minus the overlap (8.3).

        Where something was missed that is no later than what came just before.
        """
        session.ready = False
        missed_at, session.missed_at = session.missed_at, None
        now = session.unstepped(now)
        overlap_us = int(self._settings.overlap * 1e6)
        since = now.utc_us + session.clock_offset_us
        if self._last_report_at is not None:
            since = min(since, self._last_report_us(since))
        unsettled = self._not_ended_of_lost()
        for other in self._sessions.values():
            unsettled += _unanswered(other.frames.values())
        needed = [c.sent_mono for c in unsettled]
        if missed_at is not None:
            needed.append(missed_at)
        if needed:
            since = min(since, now.utc_us + session.clock_offset_us - int((now.mono - min(needed)) * 1e6))
        session.subscribe_reports(start_date(since - overlap_us, 0), now)
        self._refresh(now)

    def _not_ended_of_lost(self) -> list[CancelState]:
        """A parked one is not waited for: it was never sent, or its redelivery is looked up, here or elsewhere."""
        return [c for c in self._lost_with if c.phase not in (Phase.FINAL, Phase.PARKED)]

    def _last_report_us(self, now_us: int) -> int:
        assert self._last_report_at is not None
        try:
            return parse_utc(self._last_report_at)
        except ValueError:  # a report carried a Timestamp that is none
            return now_us - int(self._settings.lookback * 1e6)

    # -- streams

    def _stream_frame(
        self, session: SessionState, frame: AnyFrame, records: Sequence[Record] | None, source: Source, now: Now
    ) -> None:
        sub = session.subscription(frame)
        if sub is None:
            # A stream that was ended: its last frames are still under way (protocol 3.5), or the venue goes on under
            # its reqid. A report is the venue's word whatever it comes under, and known by its ExecID.
            if records and session.main is not None and session.tells_reports_still(frame):
                self._live(session, session.main, frame, records, source, now)
            return
        if session.has_gap(sub, frame) and self._gap(session, sub, now):
            return  # the frame is of a stream that was just ended
        if sub.ended is None:
            if frame.initial and isinstance(sub.query, Snapshot):
                sub.query.count.expect(frame.total_count)
            news = bool(records) and self._in_snapshot(session, sub, frame, records or [], source, now)
            if session.advance(sub, frame, news, now):
                self._snapshot_ended(session, sub, now)
        elif records:
            self._live(session, sub, frame, records, source, now)

    def _gap(self, session: SessionState, sub: Subscription, now: Now) -> bool:
        """Frames are missing. True: the report stream, whose they were, was begun anew."""
        fields: dict[str, object] = {
            "session_id": session.session_id,
            "reqid": sub.reqid,
            "reason": "a frame number is missing",
        }
        self._effects.append(Note("stream_gap", "warning", fields))
        if sub.query is None:
            return self._read_anew(session, now)
        sub.ended = "failed"
        self._snapshot_ended(session, sub, now)
        return False

    def _in_snapshot(
        self,
        session: SessionState,
        sub: Subscription,
        frame: AnyFrame,
        records: Sequence[Record],
        source: Source,
        now: Now,
    ) -> bool:
        """Keep what a snapshot tells for its end; live frames may come in between. Whether it is new to the paging.

        A look-up among thousands of orders brings mostly records of no concern, which cost least.
        """
        if not frame.initial:
            self._live(session, sub, frame, records, source, now)
            return False
        query, reports = sub.query, sub.stream == EXECUTION_REPORT
        seen: set[str] = set()
        raws: list[Raw] | None = None
        for index, record in enumerate(records):
            seen.add(record.exec_id or record.order_id or "")
            if not reports:
                self._keep_order(sub, frame, record)
                continue
            if isinstance(query, Recovery):
                self._sweeps.recover(query, record)
            wanted = self._is_news(record) or (isinstance(query, Recovery) and query.may_tell(record))
            if wanted or not isinstance(query, Query):
                self._book.note(record)
                self._count(record)
            if wanted:
                raws = raws or _raws(source)
                sub.records.append((record, Raw(bytes(raws[index]))))
        news = not seen <= sub.exec_ids
        sub.exec_ids = seen
        return news

    def _is_news(self, record: Record) -> bool:
        """Whether a replayed report concerns a cancel that is in flight, or tells an ended one what it has not had."""
        return any(c.phase is not Phase.FINAL or record.exec_id not in c.exec_ids for c in self._find(record))

    def _live(
        self,
        session: SessionState,
        sub: Subscription,
        frame: AnyFrame,
        records: Sequence[Record],
        source: Source,
        now: Now,
    ) -> None:
        """Take in the records of a live frame."""
        if sub.stream != EXECUTION_REPORT:
            for record in records:
                self._keep_order(sub, frame, record)
            return
        if isinstance(sub.query, Recovery):
            for record in records:
                self._sweeps.recover(sub.query, record)
        self._reports(session, [(records, source)], now, of_main=sub.query is None)

    def _reports(self, session: SessionState, told: list[Told], now: Now, *, of_main: bool = True) -> None:
        """Judge live reports, frame by frame. Most are another's, or came on another session: those cost least."""
        requests, orders, clients = self._known_ids
        find, note, counts = self._find, self._book.note, self._counts
        foreign = 0
        for records, source in told:
            raws: list[Raw] | None = None
            try:
                for index, record in enumerate(records):
                    exec_type, request_id = record.exec_type or "other", record.cl_ord_id
                    if exec_type in counts and record.ord_status in STATUSES:
                        counts[exec_type] += 1
                    else:
                        self._count(record)
                    if record.timestamp != self._last_report_at and of_main:
                        self._note_report_time(record.timestamp)
                    known = (
                        request_id in requests
                        or record.order_id in orders
                        or (clients and (record.orig_cl_ord_id in clients or request_id in clients))
                    )
                    concerned = find(record) if known else ()
                    if not concerned:
                        foreign += 1
                        note(record)
                        continue
                    exec_id = record.exec_id
                    if not exec_id:
                        raws = raws or _raws(source)
                        exec_id = exec_id_of(raws[index])
                    first = concerned[0]
                    if (
                        exec_id in first.exec_ids
                        and (exec_type == "PendingCancel" or first.phase is Phase.FINAL)
                        and len(concerned) == 1
                    ):
                        self._stats.duplicate_reports += 1  # it came on another session
                        continue
                    raws = raws or _raws(source)
                    note(record)
                    self._desk.apply(concerned, record, raws[index], exec_id, now, session.session_id)
            except FrameError as e:  # a record's own bytes could not be had
                self._unreadable(session, str(e), now)
        self._stats.foreign_reports += foreign

    def _count(self, record: Record) -> None:
        """Count a report; a word that no page lists is logged when it is met first (protocol 5.1, 5.2)."""
        exec_type, counts = record.exec_type or "other", self._counts
        if exec_type in counts and record.ord_status in STATUSES:
            counts[exec_type] += 1
            return
        self._stats.reports.add(exec_type)
        for name, word in (("ExecType", record.exec_type), ("OrdStatus", record.ord_status)):
            known = word is None or word in (counts if name == "ExecType" else STATUSES)
            if not known and (name, word) not in self._words_met and len(self._words_met) < WORDS_MET:
                self._words_met.add((name, word))
                self._effects.append(Note("unknown_word", "warning", {"field": name, "word": f"{word!a:.100}"}))

    def _keep_order(self, sub: Subscription, frame: AnyFrame, record: Record) -> None:
        """One Order record: evidence for whoever asked, unless it says that the order left the stream (protocol 2)."""
        query = sub.query
        if query is None or isinstance(query, Recovery) or (isinstance(query, Query) and not query.wants(record)):
            return
        if frame.action == "Remove":
            if frame.initial:
                query.spoil("the venue took an order out of the list while it was read")
            return
        self._book.note_listed(record)
        if isinstance(query, Snapshot) and not frame.initial:
            query.follow(record)
        else:
            query.keep(record)

    def _note_report_time(self, timestamp: str | None) -> None:
        if timestamp is not None:
            stamp = venue.stamp(timestamp)
            if stamp > self._last_stamp:
                self._last_report_at, self._last_stamp = timestamp, stamp

    def _judge(self, sub: Subscription, session: SessionState, now: Now) -> None:
        """Judge what a replay told, in the order of its Timestamps: that of the pages is not known (protocol 3.3).

        Of one instant, what closed an order comes before the reject of a cancel for that reason.
        """
        records, sub.records = sub.records, []
        records.sort(key=lambda pair: (venue.stamp(pair[0].timestamp), pair[0].exec_type in venue.REJECTS))
        desk, session_id, whole = self._desk, session.session_id, _is_whole(sub)
        asked = _asked(sub) if whole else ()
        for record, raw in records:
            exec_id = record.exec_id or exec_id_of(raw)
            concerned = self._find(record)
            desk.apply(concerned, record, raw, exec_id, now, session_id, replayed=True, asked=asked)
        desk.replay_judged(now, whole=whole)

    def _snapshot_ended(self, session: SessionState, sub: Subscription, now: Now) -> None:
        sub.exec_ids = set()
        self._judge(sub, session, now)
        if isinstance(sub.query, Snapshot):
            self._sweeps.snapshot_ended(sub, sub.query, now)
        elif isinstance(sub.query, Recovery):
            self._sweeps.replayed(sub, sub.query, now)
        elif isinstance(sub.query, Listing):
            self._reader.ended(sub, sub.query)
        elif sub.query is not None:
            self._lookups.ended(sub, sub.query, now)
        elif not session.ready and session.missed_at is None:  # else it is no whole replay, and begun anew in a moment
            if sub.ended == "venue":
                self._note_report_time(format_utc(session.unstepped(now).utc_us + session.clock_offset_us))
            self._is_ready(session, now)

    def _is_ready(self, session: SessionState, now: Now) -> None:
        if session.closing:
            return
        session.ready = True
        session.ready_since = now.mono
        self._refresh(now)
        self._reader.session_ready(session, now)
        self._effects.append(SessionIsReady(session.number))
        self._effects.append(
            Note(
                "session_ready",
                "info",
                {"session_id": session.session_id, "slot": session.slot, "session": session.number},
            )
        )

    def _refresh(self, now: Now) -> None:
        sessions = self._sessions.values()
        self._stats.sessions_ready = sum(s.ready for s in sessions)
        self.ready = any(s.ready and s.carries_reports for s in sessions)
        if self.ready:
            self.last_ready_mono = now.mono
        self._desk.ready_clock.run(self.ready, now.mono)

    # -- error frames

    def _error(self, session: SessionState, frame: AnyFrame, now: Now) -> None:
        """An error frame says that something failed, never what became of an order (protocol 3.7, 3.8)."""
        self._stats.error_frames += 1
        fault = frame.error or venue.FrameFault()
        self._effects.append(
            Note(
                "venue_error_frame",
                "warning",
                {
                    "session_id": session.session_id,
                    "reqid": frame.reqid,
                    "code": _clipped(fault.code),
                    "msg": _clipped(fault.msg),
                },
            )
        )
        reqid = frame.reqid or 0
        sub = session.subscriptions.get(reqid)
        if sub is not None:
            self._stream_error(session, sub, fault, now)
        elif reqid in session.frames:
            self._frame_error(session.frames[reqid], fault, now)
        elif reqid == 0:
            for sent in list(session.frames.values()):  # which request it speaks of is not known: any of them
                self._frame_error(sent, fault, now, of_this_frame=False)

    def _stream_error(self, session: SessionState, sub: Subscription, fault: venue.FrameFault, now: Now) -> None:
        if session.retry_page(sub, now):
            return
        if sub.query is None:
            session.drop(f"the venue refused the report stream: code {fault.code}")
            return
        sub.ended = "failed"
        self._snapshot_ended(session, sub, now)

    def _frame_error(self, sent: SentFrame, fault: venue.FrameFault, now: Now, *, of_this_frame: bool = True) -> None:
        waiting = [c for c in sent.cancels if c.frame is sent and c.phase is Phase.SENT]
        single = of_this_frame and len(sent.cancels) == 1
        for cancel in waiting:
            cancel.alone = True
            error = CodeError(fault.code, fault.msg, f"the venue answered the frame with error code {fault.code}")
            if single and fault.code in self._settings.refusal_codes:
                cancel.refused = error
            cancel.error = error
            if not of_this_frame or fault.code not in self._settings.refusal_codes:
                cancel.lookups = max(cancel.lookups, 1)  # back-off: the venue may be asking for a slower pace
            self._desk.doubt(cancel, "error_frame", now)
            cancel.error = None

    # -- time

    def tick(self, now: Now) -> None:
        """Ping, drop what is dead, and end the snapshots that fell silent."""
        for session in self.all():
            for sub in session.tick(now):
                sub.ended = "timer"
                self._snapshot_ended(session, sub, now)
            if session.missed_at is not None and not session.closing and now.mono >= session.reread_from:
                self._read_anew(session, now)

    def next_due(self) -> float | None:
        """Monotonic seconds of the next thing ``tick`` would do."""
        return min((s.next_due() for s in self._sessions.values()), default=None)


def _raws(source: Source) -> list[Raw]:
    return source if isinstance(source, list) else venue.raw_records(source)


def _unanswered(frames: Iterable[SentFrame]) -> list[CancelState]:
    """The cancels of ``frames`` that still wait on that send."""
    return [c for frame in frames for c in frame.cancels if c.frame is frame]


def _asked(sub: Subscription) -> Container[CancelState]:
    """The cancels that a replay was subscribed for."""
    query = sub.query
    if isinstance(query, Query):
        return query.inquiry.unanswered
    return frozenset(query.sweep.command.cancels) if isinstance(query, Recovery) else ()


def _is_whole(sub: Subscription) -> bool:
    """Whether the venue has ended the snapshot and every record of it could be read."""
    return sub.ended == "venue" and not (sub.query is not None and sub.query.spoiled)


def _clipped(word: int | str | None) -> int | str | None:
    """A word of the venue as it is noted: bounded."""
    return word[:LONGEST_NOTED] if isinstance(word, str) else word
