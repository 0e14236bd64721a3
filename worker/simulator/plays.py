"""Plays: what the venue does with one cancel, as a list of steps (protocol sections 6 and 7).

A step is written "Word", "Word argument", either with " @seconds" at the end: the wait before it (else the behaviour's
gap). X is the order's ClOrdID, Y the cancel's.

PendingCancel        Y,X   the cancel is being worked
Canceled             Y,X   carried out; a reject with reason 0 if the order closed meanwhile
Trade 0.4                  fills that part of what is left (id by `fill_id`)
Fill                       fills the rest
CancelRejected 0     Y,X   with that CxlRejReason, OrdStatus as the order stands
Unknown              Y     CancelRejected, reason 1, OrdStatus Rejected, OrderID by `unknown_id`
Rejected             Y,X   refused as a message
CanceledByOther            Canceled under a ClOrdID that is neither X nor Y
PendingCancelByOther       another hand's cancel begins
PendingReplace, Replaced, ReplaceRejected     somebody's replace
Expired, DoneForDay        the order closes
any other word             a report with that ExecType that changes nothing
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from worker.simulator.script import Behaviour

PLAY_NAMES: Final = (
    "cancel",  # PendingCancel (pending = false: without), Canceled
    "partial_fill",  # Trade, PendingCancel, Trade, Canceled
    "fill_wins",  # PendingCancel (or without), the rest filled, CancelRejected 0
    "fill_only",  # the same, no reject follows
    "reject",  # CancelRejected with `reason`; PendingCancel before it if pending = true
    "unknown",  # no such order
    "closed",  # the order closes (`closed_by`), CancelRejected 0
    "message_reject",  # Rejected
    "canceled_by_other",  # Canceled under another id, then CancelRejected 0
    "replace_running",  # PendingReplace, CancelRejected 3; `ends` after `settle`
    "cancel_running",  # another hand's cancel is running, CancelRejected 3; done after `settle`
    "pending",  # PendingCancel for ever
    "silent",  # carried out, nothing live, all of it in the replay
    "ignore",  # never processed
    "error",  # an error frame for the whole frame
)

REFUSING: Final = frozenset({"CancelRejected", "Rejected", "Unknown"})
"""Steps that leave the order as it is: played whatever its state."""

_TAKES_PART: Final = frozenset({"Trade"})
_TAKES_CODE: Final = frozenset({"CancelRejected"})


class Step(NamedTuple):
    word: str
    part: float
    code: int
    wait_s: float | None


def parse_step(text: str) -> Step:
    """Reads one step. ValueError says what is wrong with it."""
    words = text.split()
    wait: float | None = None
    if words and words[-1].startswith("@"):
        wait = _number(words.pop()[1:], text)
        if wait < 0:
            raise ValueError(f"step {text!r}: the wait must not be negative")
    if not words or not words[0].isalpha() or len(words) > 2:
        raise ValueError(f"step {text!r} must be a word, perhaps an argument, perhaps @seconds")
    word, argument = words[0], words[1] if len(words) == 2 else None
    if argument is not None and word not in _TAKES_PART | _TAKES_CODE:
        raise ValueError(f"step {text!r}: {word} takes no argument")
    part, code = 0.4, 0
    if argument is not None and word in _TAKES_PART:
        part = _number(argument, text)
        if not 0 < part <= 1:
            raise ValueError(f"step {text!r}: the part must be over 0 and at most 1")
    elif argument is not None:
        code = int(_number(argument, text))
    return Step(word, part, code, wait)


def _number(text: str, step: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"step {step!r}: {text!r} is not a number") from None


@lru_cache(maxsize=4096)
def steps_of(behaviour: Behaviour) -> tuple[Step, ...]:
    """The steps of a behaviour; empty for `ignore` and `error`."""
    return tuple(parse_step(text) for text in behaviour.steps or _texts(behaviour))


def _texts(behaviour: Behaviour) -> tuple[str, ...]:
    def pending(habit: bool) -> tuple[str, ...]:
        return ("PendingCancel",) if (habit if behaviour.pending is None else behaviour.pending) else ()

    part, settle = f"Trade {behaviour.part}", f"@{behaviour.settle}"
    match behaviour.play:
        case "cancel" | "silent":
            return (*pending(True), "Canceled")
        case "partial_fill":
            return (part, *pending(True), part, "Canceled")
        case "fill_wins":
            return (*pending(True), "Fill", "CancelRejected 0")
        case "fill_only":
            return (*pending(True), "Fill")
        case "reject":
            return (*pending(False), f"CancelRejected {behaviour.reason}")
        case "unknown":
            return ("Unknown",)
        case "closed":
            return (behaviour.closed_by, "CancelRejected 0")
        case "message_reject":
            return ("Rejected",)
        case "canceled_by_other":
            return (*pending(False), "CanceledByOther", "CancelRejected 0")
        case "replace_running":
            return ("PendingReplace", "CancelRejected 3", f"{behaviour.ends} {settle}")
        case "cancel_running":
            return ("PendingCancelByOther", "CancelRejected 3", f"CanceledByOther {settle}")
        case "pending":
            return ("PendingCancel",)
        case _:
            return ()
