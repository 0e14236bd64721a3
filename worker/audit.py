"""The audit: events in, verdict out (contract sections 3 and 5). Pure, so that every sequence of events can be tried.

What is asked of the events of a command: that each of its cancels has exactly one final, or ``unresolved`` and one
final that supersedes it. A cancel is known by any event about it, and by a higher index than its own; how many cancels
a command had is not in its events, so a command whose last cancels never had one is beyond what can be seen here.

An event that comes again under its id is dropped, as every consumer drops it, but the two must say the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final, Literal

import msgspec
from msgspec import Struct, field

from worker.wire.body import MAX_ITEMS
from worker.wire.event import final_id, unresolved_id
from worker.wire.seen import SeenEvent, SeenMass
from worker.wire.timestamp import parse_utc

Kind = Literal["no final", "gap", "second final", "contradiction", "wrong id", "ledger", "not an event"]

KEPT: Final = 1000
"""Problems kept word for word; all are counted."""
OTHER_BODY: Final = "same_id_other_content"
"""``error.rule`` of the event that speaks of another body under the same command id."""
_MASS: Final = frozenset({"mass_progress", "mass_canceled", "mass_incomplete"})
_LEDGER_WORD: Final = {
    "canceled": "canceled",
    "already_closed": "already_closed",
    "cancel_rejected": "rejected",
    "refused": "rejected",
}

Key = int | str
"""A cancel within its command: its index, or ``order <OrderID>`` in a mass cancel (contract section 5)."""


class Problem(Struct, frozen=True):
    """What is wrong with one command; ``text`` is for people."""

    kind: Kind
    command_id: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


class Verdict(Struct):
    """``commands`` and ``cancels`` are those that were judged.

    ``partial``: commands begun before the time from which events were read: what is missing of them may stand before
    it. ``later``: commands begun after the time up to which commands are judged. ``open``: ``unresolved`` that nothing
    supersedes, for a person to look at. ``repeated``: events that came again under their id.
    """

    events: int = 0
    repeated: int = 0
    commands: int = 0
    cancels: int = 0
    mass_cancels: int = 0
    partial: int = 0
    later: int = 0
    open: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Nothing is wrong."""
        return not self.counts

    def add(self, problem: Problem) -> None:
        """Count a problem, and keep it if there is room."""
        self.counts[problem.kind] += 1
        if len(self.problems) < KEPT:
            self.problems.append(problem)


class _Final:
    """The final of one cancel as it was published first."""

    __slots__ = ("content", "event_id", "live", "outcome", "sent", "supersedes")

    def __init__(self, event: SeenEvent) -> None:
        self.event_id = event.event_id
        self.outcome = event.outcome
        self.live = event.order_live
        self.sent = event.sent
        self.content = _content(event)
        self.supersedes = event.supersedes


class _Command:
    """What the events say of one command."""

    __slots__ = ("begun_us", "finals", "infos", "is_mass", "ledger", "others", "unresolved", "whole")

    def __init__(self) -> None:
        self.begun_us: int | None = None
        self.infos = 0  # bit i: there is an event of cancel i that is no final
        self.finals: dict[Key, _Final] = {}
        self.unresolved: dict[Key, _Final] = {}
        self.whole: dict[str, _Final] = {}
        self.others = 0
        self.is_mass = False
        self.ledger: SeenMass | None = None


class Audit:
    """Takes events in the order of the stream, then judges.

    ``since_us``: from when on events were read, UTC microseconds; None: from the first one ever. ``until_us``: only
    commands begun before are judged; None: all. Events up to the end of the stream are taken either way, since a final
    may come long after its command.
    """

    def __init__(self, since_us: int | None = None, until_us: int | None = None) -> None:
        self._since_us = since_us
        self._until_us = until_us
        self._commands: dict[str, _Command] = {}
        self._verdict = Verdict()
        self._early: list[Problem] = []

    def take(self, event: SeenEvent) -> None:
        """The next event."""
        self._verdict.events += 1
        if event.command_id is None and (event.index is not None or not event.final):
            return  # about the worker itself
        # Without a command id the body's SHA-256 stands for it, and the event's own id for both.
        command = self._commands.setdefault(event.command_id or f"\n{event.event_id}", _Command())
        begun_us = _begun_us(event)
        if begun_us is not None and (command.begun_us is None or begun_us < command.begun_us):
            command.begun_us = begun_us
        if event.outcome in _MASS:
            command.is_mass = True
        if not event.final:
            if event.index is not None:
                command.infos |= 1 << min(event.index, MAX_ITEMS)
        elif event.index is None:
            if event.error is not None and event.error.rule == OTHER_BODY:
                command.others += 1
            else:
                self._keep(command.whole, event.event_id, event)
        else:
            self._final(command, event, event.index)

    def unreadable(self, offset: int, why: str) -> None:
        """A message of the stream that is no event."""
        self._early.append(Problem("not an event", "", f"the message at offset {offset}: {why}"))
        self._verdict.events += 1

    def _final(self, command: _Command, event: SeenEvent, index: int) -> None:
        command_id = event.command_id or ""
        make_id = unresolved_id if event.outcome == "unresolved" else final_id
        key: Key = index
        if event.event_id != make_id(command_id, index):
            key = f"order {event.order_id}"
            if event.event_id == make_id(command_id, key):
                command.is_mass = True
            else:
                key = index
                text = f"{event.outcome} of {_name(command_id, index)} has another id than its command and index make"
                self._early.append(Problem("wrong id", command_id, text))
        if event.outcome in _MASS and event.mass is not None:
            command.ledger = command.ledger or event.mass
        self._keep(command.unresolved if event.outcome == "unresolved" else command.finals, key, event)

    def _keep(self, finals: dict[Key, _Final] | dict[str, _Final], key: Key, event: SeenEvent) -> None:
        known = finals.get(key)  # type: ignore[arg-type]
        if known is None:
            finals[key] = _Final(event)  # type: ignore[index]
            return
        name = _name(event.command_id or "", key if event.index is not None else None)
        if known.event_id != event.event_id:
            text = f"{name} has two: {known.outcome}, and {event.outcome} under another id"
            self._early.append(Problem("second final", event.command_id or "", text))
            return
        self._verdict.repeated += 1
        known.supersedes = known.supersedes or event.supersedes
        if (known.outcome, known.live) != (event.outcome, event.order_live):
            text = (
                f"{name} was published twice under one id: {known.outcome} with order_live {_word(known.live)}, "
                f"then {event.outcome} with order_live {_word(event.order_live)}"
            )
        elif known.content != _content(event):
            text = f"{name} was published twice under one id, as {known.outcome} with another order or report"
        else:
            return
        self._early.append(Problem("contradiction", event.command_id or "", text))

    # -- the verdict

    def verdict(self) -> Verdict:
        """Judge what was taken. Call it once, at the end."""
        verdict = self._verdict
        late = set()
        for command_id, command in self._commands.items():
            if self._is_later(command):
                late.add(command_id)
                verdict.later += 1
                continue
            verdict.commands += 1
            if self._is_partial(command):
                verdict.partial += 1
            for final in self._ends(command):
                verdict.cancels += 1
                verdict.outcomes[final.outcome] += 1
            verdict.open += len(command.unresolved.keys() - command.finals.keys())
            verdict.mass_cancels += command.is_mass
            for problem in self._judged(command_id, command):
                verdict.add(problem)
        for problem in self._early:
            if problem.command_id not in late or not problem.command_id:
                verdict.add(problem)
        return verdict

    def _is_later(self, command: _Command) -> bool:
        return self._until_us is not None and command.begun_us is not None and command.begun_us >= self._until_us

    def _is_partial(self, command: _Command) -> bool:
        return self._since_us is not None and (command.begun_us is None or command.begun_us < self._since_us)

    @staticmethod
    def _ends(command: _Command) -> Iterator[_Final]:
        """What ended each cancel: the final, else the ``unresolved``; the mass cancel's own report is none."""
        for key in command.finals.keys() | command.unresolved.keys():
            if not (command.is_mass and key == 0):
                yield command.finals.get(key) or command.unresolved[key]
        yield from command.whole.values()

    def _judged(self, command_id: str, command: _Command) -> Iterator[Problem]:
        for key, unresolved in command.unresolved.items():
            final = command.finals.get(key)
            if final is not None and final.supersedes != unresolved.event_id:
                text = f"{_name(command_id, key)} is unresolved and {final.outcome}, and neither supersedes the other"
                yield Problem("second final", command_id, text)
        if command.whole and command.finals and not all(f.supersedes for f in command.finals.values()):
            # A requeued command may be refused as a whole first and carried out later; its finals say so.
            outcome = next(iter(command.whole.values())).outcome
            text = (
                f"{_name(command_id, None)} is {outcome} as a whole, and its cancels have finals of their own: "
                "two bodies came under one id, or the worker is at fault"
            )
            yield Problem("second final", command_id, text)
        if command.is_mass:
            yield from self._judged_mass(command_id, command)
        elif not command.whole and not self._is_partial(command):
            yield from self._missing(command_id, command)

    @staticmethod
    def _missing(command_id: str, command: _Command) -> Iterator[Problem]:
        ended = {key for key in command.finals.keys() | command.unresolved.keys() if isinstance(key, int)}
        highest = max(max(ended, default=-1), command.infos.bit_length() - 1)
        if highest < 0:
            if not command.others:
                yield Problem("no final", command_id, f"{_name(command_id, None)} has none")
            return
        for index in range(highest + 1):
            if index in ended:
                continue
            if command.infos >> index & 1:
                yield Problem("no final", command_id, f"{_name(command_id, index)} has none")
            else:
                text = f"{_name(command_id, index)} has no event at all, though cancel {highest} has"
                yield Problem("gap", command_id, text)

    def _judged_mass(self, command_id: str, command: _Command) -> Iterator[Problem]:
        if 0 not in command.finals and 0 not in command.unresolved and not command.whole:
            if not self._is_partial(command):
                yield Problem("no final", command_id, f"the mass cancel {command_id} has none")
            return
        ledger = command.ledger
        if ledger is None:
            return
        name = f"the mass cancel {command_id}"
        if not ledger.adds_up:
            yield Problem("ledger", command_id, f"{name}: the counts are not the {ledger.matched} that matched")
        final = command.finals[0]
        if final.outcome == "mass_canceled" and ledger.remaining:
            text = f"{name} says that it is flat, and that {len(ledger.remaining)} orders remain"
            yield Problem("ledger", command_id, text)
        if self._is_partial(command):
            return
        told: Counter[str] = Counter()
        for key in command.finals.keys() | command.unresolved.keys():
            if key != 0:
                end = command.finals.get(key) or command.unresolved[key]
                told[_LEDGER_WORD.get(end.outcome, "unknown or unsent")] += 1
        for word, counted in (
            ("canceled", ledger.canceled),
            ("already_closed", ledger.already_closed),
            ("rejected", ledger.rejected),
            ("unknown or unsent", ledger.unknown + ledger.unsent),
        ):
            # A sweep that was begun anew no longer matches what the first one closed.
            if told[word] != counted and not (ledger.restarted and told[word] > counted):
                text = f"{name} counts {counted} {word}, but {told[word]} finals of orders say so"
                yield Problem("ledger", command_id, text)


def _begun_us(event: SeenEvent) -> int | None:
    """When the command was taken, or published; UTC microseconds."""
    times = event.times
    for text in (times.received, times.enqueued, times.published):
        if text is not None:
            try:
                return parse_utc(text)
            except ValueError:
                pass
    return None


def _content(event: SeenEvent) -> int:
    """What must be equal in two copies of a final besides outcome and order_live (contract section 3, Ids)."""
    return hash((msgspec.json.encode(event.order), bytes(event.report)))


def _name(command_id: str, key: Key | None) -> str:
    about = f"command {command_id}" if command_id and not command_id.startswith("\n") else "a command without an id"
    if key is None:
        return about
    return f"cancel {key} of {about}" if isinstance(key, int) else f"{key} of {about}"


def _word(live: bool | None) -> str:
    return {True: "true", False: "false", None: "null"}[live]
