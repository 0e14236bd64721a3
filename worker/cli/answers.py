"""What became of one command, from the events about it: pure, so that every order of events can be tested."""

from __future__ import annotations

from typing import Final

from worker.cli.console import Tone
from worker.cli.request import Request
from worker.wire.seen import SeenEvent

DONE: Final = frozenset({"canceled", "already_closed"})
"""Outcomes after which the order works no more: what was asked for is so."""


class Answers:
    """The events of one command, each ``event_id`` once, and the final of each of its cancels."""

    def __init__(self, asked: Request) -> None:
        self._asked = asked
        self._seen: set[str] = set()
        self.finals: dict[int, SeenEvent] = {}
        self.of_command: SeenEvent | None = None
        """A final about the command as a whole: it ends every cancel."""

    def take(self, event: SeenEvent) -> bool:
        """Note an event; False if it is about another command or came before (contract section 3, Ids)."""
        if event.command_id != self._asked.command_id or event.event_id in self._seen:
            return False
        self._seen.add(event.event_id)
        if event.final and event.index is None:
            self.of_command = event
        elif event.final and event.index is not None:
            # The first counts; only what supersedes an `unresolved` comes after it.
            known = self.finals.get(event.index)
            if known is None or event.supersedes == known.event_id:
                self.finals[event.index] = event
        return True

    @property
    def missing(self) -> list[int]:
        """Indexes of the cancels without a final."""
        if self.of_command is not None:
            return []
        return [item.index for item in self._asked.items if item.index not in self.finals]

    @property
    def is_complete(self) -> bool:
        return not self.missing

    @property
    def all_done(self) -> bool:
        """Every order is proven to work no more."""
        return self.of_command is None and self.is_complete and all(e.outcome in DONE for e in self.finals.values())

    def rows(self) -> tuple[list[list[str]], list[Tone]]:
        """A row for each cancel, in the columns of ``HEAD``, and its tone."""
        rows: list[list[str]] = []
        tones: list[Tone] = []
        for item in self._asked.items:
            event = self.of_command or self.finals.get(item.index)
            target = item.order_id or item.orig_cl_ord_id or ""
            if event is None:
                rows.append([str(item.index), item.symbol, target, "no final yet", "", "", "", ""])
                tones.append("doubt")
            else:
                filled = event.order.cum_qty if event.order is not None else None
                live, sent = LIVE[event.order_live], event.sent or ""
                rows.append([str(item.index), item.symbol, target, event.outcome, live, sent, filled or "", event.told])
                tones.append(tone_of(event))
        return rows, tones


HEAD: Final = ("index", "symbol", "order", "outcome", "order live", "sent", "filled", "told")
LIVE: Final = {True: "yes", False: "no", None: "not known"}


def tone_of(event: SeenEvent) -> Tone:
    """Green: the order works no more; yellow: doubt; red: it may still work."""
    if event.outcome in DONE:
        return "good"
    if event.outcome in ("doubtful", "unresolved"):
        return "doubt"
    return "bad" if event.final else "quiet"


def told_of(event: SeenEvent) -> str:
    """What is said of an event, what was filled before, and whether it came after the final."""
    filled = event.order.cum_qty if event.order is not None else None
    parts = (event.told, f"filled {filled}" if filled and filled.strip("0.") else "", "late" if event.late else "")
    return ", ".join(part for part in parts if part)


def line_of(event: SeenEvent) -> str:
    """One event on one line: time, outcome, symbol, order, whether it is live, what is said."""
    at = (event.times.published or "")[11:23]
    index = "" if event.index is None else f"#{event.index}"
    order = event.order_id or event.orig_cl_ord_id or ""
    live = "" if event.outcome.startswith("worker_") else f"live {LIVE[event.order_live]}"
    about = f"{index:<4} {event.symbol or '':<9} {order:<36}"
    return f"{at}  {event.outcome:<15} {about}  {live:<14} {told_of(event)}".rstrip()
