"""What the demo asks for: a kind for each thing that can become of a cancel, and what must come of it.

A kind says how the venue behaves towards the order, how the command is published, and which final event every cancel
of it must get. Nothing here does anything: demo.py publishes, verdict.py compares.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec
from msgspec import Struct, field

from worker.simulator import Behaviour
from worker.wire.command import Lane
from worker.wire.timestamp import format_utc

SYMBOLS: Final = ("BTC-USD", "ETH-USD", "SOL-USD")
_JSON, _MSGPACK = "application/json", "application/msgpack"


class Due(Struct, frozen=True):
    """The final that must come. ``index`` None: one event about the whole command; ``order_id`` None: no order."""

    index: int | None
    outcome: str
    order_live: bool | None
    order_id: str | None


class Order(Struct, frozen=True):
    """An order that stands at the venue, and what becomes of a cancel of it."""

    order_id: str
    symbol: str
    behaviour: Behaviour


class Ask(Struct, frozen=True):
    """One command: what is put on the broker, the orders it is about, the finals that must come of it.

    ``copies``: how often the same message is published. ``dead``: it must end among the dead letters.
    """

    kind: str
    command_id: str
    body: bytes
    due: tuple[Due, ...]
    orders: tuple[Order, ...] = ()
    lane: Lane = "cancel"
    content_type: str = _JSON
    headers: dict[str, str] = field(default_factory=dict)
    copies: int = 1
    dead: bool = False


class Kind(Struct, frozen=True):
    """``make`` builds one command. ``most``: never more than so many of them, None for no limit."""

    name: str
    make: Callable[[str, random.Random], Ask]
    most: int | None = None


def asks(count: int, seed: int) -> list[Ask]:
    """``count`` commands of every kind, mixed; the same for the same seed."""
    rng = random.Random(seed)
    made = [kind.make(kind.name, rng) for kind in KINDS for _ in range(min(count, kind.most or count))]
    rng.shuffle(made)
    return made


def _venue(outcome: str, order_live: bool | None, behaviour: Behaviour, lane: Lane = "cancel") -> _Make:
    """One cancel of one order, decided by how the venue behaves."""

    def make(kind: str, rng: random.Random) -> Ask:
        order = _order(rng, behaviour)
        due = Due(0, outcome, order_live, order.order_id)
        return Ask(kind, _uuid(rng), _body(order), (due,), (order,), lane)

    return make


def _unknown(kind: str, rng: random.Random) -> Ask:
    order = _order(rng, Behaviour())
    return Ask(kind, _uuid(rng), _body(order), (Due(0, "unknown_order", None, order.order_id),))


def _twice(kind: str, rng: random.Random) -> Ask:
    order = _order(rng, _slow())
    due = Due(0, "canceled", False, order.order_id)
    return Ask(kind, _uuid(rng), _body(order), (due,), (order,), copies=2)


def _msgpack(kind: str, rng: random.Random) -> Ask:
    order = _order(rng, _slow())
    body = msgspec.msgpack.encode(_command([order]))
    due = Due(0, "canceled", False, order.order_id)
    return Ask(kind, _uuid(rng), body, (due,), (order,), content_type=_MSGPACK)


def _bad_item(kind: str, rng: random.Random) -> Ask:
    """A good cancel and one without Symbol: the neighbour must not suffer."""
    good, bad = _order(rng, _slow()), _order(rng, _slow())
    command = _command([good])
    command["data"].append({"OrderID": bad.order_id})
    dues = (Due(0, "canceled", False, good.order_id), Due(1, "invalid", None, bad.order_id))
    return Ask(kind, _uuid(rng), msgspec.json.encode(command), dues, (good, bad), dead=True)


def _bad_body(kind: str, rng: random.Random) -> Ask:
    return Ask(
        kind, _uuid(rng), b'{"type": "OrderCancelRequest", "data"', (Due(None, "invalid", None, None),), dead=True
    )


def _late(kind: str, rng: random.Random) -> Ask:
    order = _order(rng, _slow())
    due = Due(0, "deadline_passed", None, order.order_id)
    headers = {"deadline": format_utc(1_600_000_000_000_000)}
    return Ask(kind, _uuid(rng), _body(order), (due,), (order,), headers=headers)


def _slow(play: str = "cancel", **more: object) -> Behaviour:
    """As a venue does it: a few milliseconds before and between reports."""
    return msgspec.convert({"play": play, "delay": 0.004, "gap": 0.008, "jitter": 0.004, **more}, Behaviour)


def _order(rng: random.Random, behaviour: Behaviour) -> Order:
    return Order(_uuid(rng), rng.choice(SYMBOLS), behaviour)


def _command(orders: Sequence[Order]) -> dict[str, list[dict[str, str]]]:
    data = [{"Symbol": order.symbol, "OrderID": order.order_id} for order in orders]
    return {"type": "OrderCancelRequest", "data": data}  # type: ignore[dict-item]  # one text beside the lists


def _body(order: Order) -> bytes:
    return msgspec.json.encode(_command([order]))


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


_Make = Callable[[str, random.Random], Ask]

KINDS: Final = (
    Kind("accepted", _venue("canceled", False, _slow())),
    Kind("no PendingCancel", _venue("canceled", False, _slow(pending=False))),
    Kind("partly filled", _venue("canceled", False, _slow("partial_fill"))),
    Kind("too late", _venue("already_closed", False, _slow("closed"))),
    Kind("fill wins the race", _venue("already_closed", False, _slow("fill_wins"))),
    Kind("canceled by another", _venue("already_closed", False, _slow("canceled_by_other"))),
    Kind("unknown order", _unknown),
    Kind("rejected", _venue("cancel_rejected", True, _slow("reject", reason=2, text="refused by the venue"))),
    Kind("error frame", _venue("refused", True, _slow("error", code=1, msg="invalid request"))),
    Kind("sent twice", _twice),
    Kind("MessagePack", _msgpack),
    Kind("bad item", _bad_item),
    Kind("bad body", _bad_body),
    Kind("deadline passed", _late),
    Kind("report lost", _venue("canceled", False, _slow("silent"))),
    Kind("session cut", _venue("canceled", False, _slow(cut="after")), most=2),
    Kind("kill lane", _venue("canceled", False, _slow(), "kill")),
)


def dues(asked: Sequence[Ask]) -> Iterator[tuple[Ask, Due]]:
    """Every final that must come."""
    for ask in asked:
        for due in ask.due:
            yield ask, due
