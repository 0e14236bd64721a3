"""The cancel desk: takes OrderCancelRequest frames, answers every element on its own (protocol sections 3.8, 6)."""

from __future__ import annotations

import fnmatch
import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

from worker.simulator.book import Book, Order
from worker.simulator.ledger import CancelSeen, Ledger
from worker.simulator.plays import REFUSING, Step, steps_of
from worker.simulator.script import Behaviour, CancelItem, Chooser, Rule, Script
from worker.simulator.session import Session
from worker.simulator.wire import INVALID_REQUEST, Report, parse_stamp


class DeskPort(Protocol):
    """What the desk needs of the venue: a clock, timers, and someone who publishes reports."""

    def now_us(self) -> int: ...
    def later(self, delay_s: float, call: Callable[[], None]) -> None: ...
    def publish(self, report: Report, behaviour: Behaviour, origin: Session | None) -> None: ...
    def implicit_order(self, item: CancelItem) -> Order | None: ...


class Choice(NamedTuple):
    """The behaviour picked for one element and where it came from, so that only what is carried out is counted."""

    item: CancelItem
    order: Order | None
    behaviour: Behaviour
    rule: int | None


def read_item(element: object) -> CancelItem | str:
    """One element of `data`, or what is wrong with it (protocol section 3.8)."""
    if not isinstance(element, dict):
        return "data must hold objects"
    for key in ("Symbol", "ClOrdID", "OrderID", "OrigClOrdID", "TransactTime", "Timestamp"):
        value = element.get(key)
        if value is not None and (not isinstance(value, str) or not value):
            return f"{key} must be a string that is not empty"
    symbol, own, at = element.get("Symbol"), element.get("ClOrdID"), element.get("TransactTime")
    order_id, orig = element.get("OrderID"), element.get("OrigClOrdID")
    if symbol is None:
        return "Symbol is missing"
    if own is None or len(own) > 36:
        return "ClOrdID is missing or longer than 36"
    if order_id is None and orig is None:
        return "one of OrderID, OrigClOrdID is required"
    if not isinstance(at, str) or parse_stamp(at) is None:
        return "TransactTime is missing or no UTC time"
    return CancelItem(symbol, own, order_id, orig, at)


def means_unknown(behaviour: Behaviour) -> bool:
    """The venue shall know no such order: none is made up for it."""
    return any(step.word == "Unknown" for step in steps_of(behaviour))


def share(seed: int, text: str) -> float:
    """A number in [0, 1) from seed and text alone: the same whatever arrives before."""
    raw = hashlib.blake2b(f"{seed}/{text}".encode(), digest_size=7).digest()
    return int.from_bytes(raw, "big") / 2**56


class Desk:
    def __init__(self, script: Script, book: Book, ledger: Ledger, rng: random.Random, venue: DeskPort) -> None:
        self.on_cancel: Chooser | None = None
        self.rules: list[Rule] = list(script.rules)
        self._script, self._book, self._ledger, self._rng, self._venue = script, book, ledger, rng, venue
        self._viewer = script.login.role == "Viewer"
        self._rule_uses: dict[int, int] = {}
        self._total_weight = sum(entry.weight for entry in script.mix)
        self._budget, self._budget_at = script.cancels.rate_limit, time.monotonic()

    # -- a frame -------------------------------------------------------------------------------------------------

    def take(self, session: Session, reqid: int, elements: list[object]) -> None:
        """Judges one frame as a whole, then plays its elements."""
        settings = self._script.cancels
        items = [read_item(element) for element in elements]
        refusal = self._refusal(len(items))
        faulty = next((item for item in items if isinstance(item, str)), None)
        if refusal is None and self._viewer and self._script.login.viewer_answer == "error":
            refusal = (INVALID_REQUEST, "the key may not trade")
        if refusal is None and faulty is not None and settings.bad_element == "error":
            refusal = (INVALID_REQUEST, faulty)
        if refusal is not None:
            self._note_all(session, reqid, elements, "refused")
            session.error(reqid, *refusal)
            return
        ahead: Counter[str | int] = Counter()
        choices = [self._choose(item, ahead) for item in items if isinstance(item, CancelItem)]
        for choice in choices:
            if choice.behaviour.play == "error" and not choice.behaviour.steps:
                self._spend([c for c in choices if c.behaviour.play == "error"])
                self._note_all(session, reqid, elements, "refused")
                self._venue.later(choice.behaviour.delay, _error(session, reqid, choice.behaviour))
                return
        cutting = [choice for choice in choices if choice.behaviour.cut]
        if any(choice.behaviour.cut == "before" for choice in cutting):
            self._spend(cutting)
            self._note_all(session, reqid, elements, "cut")
            session.end(cutting[0].behaviour.cut_how)
            return
        if cutting:
            # The frame has arrived, its reports go unseen: the line ends first, then the work is done.
            session.end(cutting[0].behaviour.cut_how)
        chosen = iter(choices)
        for index, item in enumerate(items):
            if isinstance(item, str):
                fate = self._invalid(session, elements[index])
            else:
                fate = self._element(session, next(chosen))
            self._note(session, reqid, index, elements, fate)

    def _refusal(self, size: int) -> tuple[int, str] | None:
        settings = self._script.cancels
        if settings.max_batch and size > settings.max_batch:
            return settings.max_batch_code, f"more than {settings.max_batch} cancels in a frame"
        if settings.rate_limit:
            now = time.monotonic()
            grown = self._budget + (now - self._budget_at) * settings.rate_limit
            self._budget, self._budget_at = min(settings.rate_limit, grown), now
            if self._budget < size:
                return settings.rate_code, "rate limit"
            self._budget -= size
        return None

    def _note_all(self, session: Session, reqid: int, elements: list[object], fate: str) -> None:
        for index in range(len(elements)):
            self._note(session, reqid, index, elements, fate)

    def _note(self, session: Session, reqid: int, index: int, elements: list[object], fate: str) -> None:
        element = elements[index]

        def text(key: str) -> str | None:
            value = element.get(key) if isinstance(element, dict) else None
            return value if isinstance(value, str) else None

        self._ledger.count(f"cancels_{fate}")
        self._ledger.cancels.append(
            CancelSeen(
                time.monotonic(),
                self._venue.now_us(),
                session.number,
                session.session_id,
                reqid,
                index,
                len(elements),
                text("Symbol"),
                text("ClOrdID"),
                text("OrderID"),
                text("OrigClOrdID"),
                text("TransactTime"),
                fate,
            )
        )

    # -- choosing ------------------------------------------------------------------------------------------------

    def behaviour_by_script(
        self, item: CancelItem, asked: int = 0, ahead: Mapping[str | int, int] = MappingProxyType({})
    ) -> tuple[Behaviour, int | None]:
        """The callback, the rules in order, the mix, the script's own behaviour: the first that has a word.

        `asked`: cancels the order has had before; each draws from the mix anew. `ahead`: uses of each rule by
        elements before this one in its frame.
        """
        if self.on_cancel is not None:
            called = self.on_cancel(item)
            if called is not None:
                return called, None
        for number, rule in enumerate(self.rules):
            spent = rule.count and self._rule_uses.get(number, 0) + ahead.get(number, 0) >= rule.count
            if not spent and _matches(rule, item):
                return rule.behaviour, number
        if self._script.mix:
            target = item.order_id or item.orig_cl_ord_id or ""
            left = share(self._script.seed, f"{target}/{asked}") * self._total_weight
            for entry in self._script.mix:
                left -= entry.weight
                if left < 0:
                    return entry.behaviour, None
        return self._script.behaviour, None

    def _choose(self, item: CancelItem, ahead: Counter[str | int]) -> Choice:
        """Looks only: what is chosen counts when it is carried out. `ahead` counts the frame's elements so far."""
        order = self._book.find(item)
        asked = 0 if order is None else order.asked + ahead[order.order_id]
        if order is not None and order.behaviours:
            ahead[order.order_id] += 1
            return Choice(item, order, order.behaviours[min(asked, len(order.behaviours) - 1)], None)
        behaviour, rule = self.behaviour_by_script(item, asked, ahead)
        if order is None and not means_unknown(behaviour):
            order = self._venue.implicit_order(item)
        if order is not None:
            ahead[order.order_id] += 1
        if rule is not None:
            ahead[rule] += 1
        return Choice(item, order, behaviour, rule)

    def _spend(self, choices: list[Choice]) -> None:
        for choice in choices:
            if choice.order is not None:
                choice.order.asked += 1
            if choice.rule is not None:
                self._rule_uses[choice.rule] = self._rule_uses.get(choice.rule, 0) + 1

    # -- an element ----------------------------------------------------------------------------------------------

    def _invalid(self, session: Session, element: object) -> str:
        if self._script.cancels.bad_element == "reject" and isinstance(element, dict):

            def text(key: str) -> str:
                value = element.get(key)
                return value if isinstance(value, str) else ""

            item = CancelItem(text("Symbol"), text("ClOrdID"), text("OrderID"), text("OrigClOrdID"), "")
            report = self._book.refuse(item, self._book.find(item), 99, self._venue.now_us())
            report.text = "invalid cancel request"
            self._venue.publish(report, self._script.behaviour, session)
        return "invalid"

    def _element(self, session: Session, choice: Choice) -> str:
        item, behaviour = choice.item, choice.behaviour
        now_us = self._venue.now_us()
        if self._viewer:
            self._venue.publish(self._book.refuse(item, choice.order, 2, now_us), self._script.behaviour, session)
            return "refused"
        self._spend([choice])
        if behaviour.play == "ignore" and not behaviour.steps:
            return "ignored"
        order = choice.order
        if self._book.is_used(item.cl_ord_id):
            if self._script.cancels.duplicate_id == "reject":
                self._venue.publish(self._book.refuse(item, order, 6, now_us), self._script.behaviour, session)
            return "duplicate"
        self._book.use(item.cl_ord_id)
        steps = steps_of(behaviour)
        if order is None:
            steps = (Step("Unknown", 0.0, 1, None),)
        changes = not behaviour.force and any(step.word not in REFUSING for step in steps)
        if order is not None and changes and (order.closed or order.busy):
            steps = (Step("CancelRejected", 0.0, 0 if order.closed else 3, None),)
        self._play(steps, order, item, behaviour, session)
        return "unknown" if order is None else "processed"

    def _play(
        self, steps: tuple[Step, ...], order: Order | None, item: CancelItem, behaviour: Behaviour, session: Session
    ) -> None:
        delay = behaviour.delay
        if behaviour.jitter:
            delay += behaviour.jitter * share(self._script.seed, item.cl_ord_id)
        if behaviour.order != "made":
            self._venue.later(delay, lambda: self._disordered(steps, order, item, behaviour, session))
            return
        for number, step in enumerate(steps):
            gap = behaviour.gap if number else 0.0
            delay += gap if step.wait_s is None else step.wait_s
            self._venue.later(delay, self._step(step, order, item, behaviour, session))

    def _step(
        self, step: Step, order: Order | None, item: CancelItem, behaviour: Behaviour, session: Session
    ) -> Callable[[], None]:
        def carry_out() -> None:
            report = self._report(step, order, item, behaviour)
            if report is not None:
                self._venue.publish(report, behaviour, session)

        return carry_out

    def _report(self, step: Step, order: Order | None, item: CancelItem, behaviour: Behaviour) -> Report | None:
        now_us = self._venue.now_us()
        if order is None:
            return self._book.unknown(item, behaviour, now_us)
        return self._book.play(step, order, item, behaviour, now_us)

    def _disordered(
        self, steps: tuple[Step, ...], order: Order | None, item: CancelItem, behaviour: Behaviour, session: Session
    ) -> None:
        """All steps at once; their reports leave in another order than they were made."""
        made = [self._report(step, order, item, behaviour) for step in steps]
        reports = [report for report in made if report is not None]
        if behaviour.order == "reversed":
            reports.reverse()
        else:
            self._rng.shuffle(reports)
        for report in reports:
            self._venue.publish(report, behaviour, session)


def _error(session: Session, reqid: int, behaviour: Behaviour) -> Callable[[], None]:
    return lambda: session.error(reqid, behaviour.code, behaviour.msg, behaviour.error_reqid)


def _matches(rule: Rule, item: CancelItem) -> bool:
    return (
        fnmatch.fnmatchcase(item.symbol, rule.symbol)
        and fnmatch.fnmatchcase(item.order_id or "", rule.order_id)
        and fnmatch.fnmatchcase(item.cl_ord_id, rule.cl_ord_id)
    )
