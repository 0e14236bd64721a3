"""Does it add up? What was asked, what the worker said, how the venue's own book stands: compared, nothing assumed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal

from msgspec import Struct, field

from worker.demo.kinds import KINDS, Ask, Due, dues
from worker.simulator import Truth
from worker.wire.seen import SeenEvent


class Books(Struct, frozen=True):
    """What was found when all was over.

    ``truths``: the venue's orders by OrderID; ``sent``: how many cancels came to the venue by OrderID; ``dead``:
    command ids among the dead letters; ``left``: messages left by queue; ``exit_status``: the worker's.
    """

    truths: Mapping[str, Truth]
    sent: Mapping[str, int]
    dead: Sequence[str]
    left: Mapping[str, int]
    exit_status: int | None


class Row(Struct):
    """One kind: commands published, finals that were due, that came, that were as expected, that the venue's book bears
    out."""

    kind: str
    commands: int = 0
    due: int = 0
    seen: int = 0
    right: int = 0
    borne_out: int = 0

    @property
    def adds_up(self) -> bool:
        return self.due == self.seen == self.right == self.borne_out


class Verdict(Struct, frozen=True):
    """``problems`` is empty if everything adds up; each is one line for people."""

    rows: list[Row]
    total: Row
    events: int
    repeated: int
    dead: int
    left: int
    problems: list[str] = field(default_factory=list)

    @property
    def adds_up(self) -> bool:
        return not self.problems


class Seen:
    """The events as a consumer keeps them: each ``event_id`` once (contract section 3, Ids)."""

    def __init__(self) -> None:
        self.events: dict[str, SeenEvent] = {}
        self.finals: dict[tuple[str, int | None], SeenEvent] = {}
        self.repeated = 0
        self.contradictions: list[str] = []

    def take(self, event: SeenEvent) -> bool:
        """Keep an event; False if its id came before."""
        if event.event_id in self.events:
            self.repeated += 1
            return False
        self.events[event.event_id] = event
        if event.final:
            about = (event.command_id or "", event.index)
            known = self.finals.get(about)
            if known is None or event.supersedes == known.event_id:
                self.finals[about] = event
            elif known.supersedes != event.event_id:
                self.contradictions.append(
                    f"two finals for cancel {about[1]} of command {about[0]}: {known.outcome}, {event.outcome}"
                )
        return True


def verdict(asked: Sequence[Ask], seen: Seen, books: Books) -> Verdict:
    """Compare everything; what differs is one problem each."""
    rows = {kind.name: Row(kind.name) for kind in KINDS}
    problems = list(seen.contradictions)
    for ask in asked:
        rows[ask.kind].commands += 1
    for ask, due in dues(asked):
        row = rows[ask.kind]
        row.due += 1
        final = seen.finals.get((ask.command_id, due.index))
        if final is None:
            problems.append(f"{ask.kind}: no final for cancel {due.index} of command {ask.command_id}")
            continue
        row.seen += 1
        wrong = _unlike(final, due)
        row.right += not wrong
        lie = _not_borne_out(final, due, books)
        row.borne_out += not lie
        problems += [f"{ask.kind}: command {ask.command_id}: {text}" for text in (wrong, lie) if text]
    asked_for = {(ask.command_id, due.index) for ask, due in dues(asked)}
    problems += [
        f"a final that nobody asked for: {final.outcome} of command {about[0]}, cancel {about[1]}"
        for about, final in seen.finals.items()
        if about not in asked_for
    ]
    problems += _left_over(asked, books)
    total = Row("total")
    for row in rows.values():
        for name in ("commands", "due", "seen", "right", "borne_out"):
            setattr(total, name, getattr(total, name) + getattr(row, name))
    return Verdict(
        list(rows.values()), total, len(seen.events), seen.repeated, len(books.dead), sum(books.left.values()), problems
    )


def _unlike(final: SeenEvent, due: Due) -> str:
    handed_back = (final.outcome, final.sent, final.order_live) == ("deadline_passed", "maybe", True)
    if handed_back and due.outcome == "deadline_passed":
        return ""  # redelivered, as no session was ready: the order is looked up first (contract section 3)
    if (final.outcome, final.order_live) != (due.outcome, due.order_live):
        return f"{final.outcome}, order_live {final.order_live}; expected {due.outcome}, order_live {due.order_live}"
    return ""


def _not_borne_out(final: SeenEvent, due: Due, books: Books) -> str:
    """What the venue's own book says against a final; empty if it agrees."""
    if due.order_id is None:
        return ""
    truth, sent = books.truths.get(due.order_id), books.sent.get(due.order_id, 0)
    if truth is None:
        return "" if final.outcome == "unknown_order" else f"{final.outcome}, but the venue has no such order"
    stands = f"at the venue order {due.order_id} is {truth.status}"
    match final.outcome:
        case "canceled":
            agrees = truth.status == "Canceled" and truth.canceled_by == final.cl_ord_id
        case "already_closed":
            agrees = not truth.open and truth.canceled_by != final.cl_ord_id
        case "cancel_rejected" | "refused":
            agrees = truth.open and sent > 0
        case "invalid" | "deadline_passed":
            agrees = truth.open and sent == 0
        case _:
            agrees = False
    if not agrees:
        return f"{final.outcome}, but {stands}, {sent} cancels came for it"
    filled = final.order.cum_qty if final.order is not None else None
    if filled is not None and Decimal(filled) != Decimal(truth.cum_qty):
        return f"filled {filled}, but {stands}, filled {truth.cum_qty}"
    return ""


def _left_over(asked: Sequence[Ask], books: Books) -> list[str]:
    problems = [f"{count} messages are left in queue {queue}" for queue, count in books.left.items() if count]
    expected, found = Counter(ask.command_id for ask in asked if ask.dead), Counter(books.dead)
    problems += [f"command {command_id} is not among the dead letters" for command_id in expected - found]
    problems += [f"command {command_id} is among the dead letters" for command_id in found - expected]
    if books.exit_status != 0:
        problems.append(f"the worker ended with exit status {books.exit_status}")
    return problems
