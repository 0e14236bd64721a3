"""Events as a worker publishes them, made by hand and put on a real broker."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from tests.support.broker import Broker
from worker.wire import event as wire
from worker.wire.event import Event, Times
from worker.wire.timestamp import format_utc


def make_event(command_id: str | None, index: int | None, outcome: str, at_us: int | None = None, **more: Any) -> Event:
    """One event; the id is what a worker would give it unless ``more`` has another."""
    final = bool(more.pop("final", outcome in wire.FINAL_OUTCOMES))
    order_id = more.get("order_id")
    key: int | str | None = f"order {order_id}" if more.pop("of_sweep", False) else index
    if key is None:
        made = wire.command_event_id(command_id, str(more.pop("sha256", "00")), outcome)
    elif not final:
        made = wire.attempt_id(command_id or "", key, outcome, more.get("attempt", 1))
    else:
        made = (wire.unresolved_id if outcome == "unresolved" else wire.final_id)(command_id or "", key)
    at = format_utc(time.time_ns() // 1000 if at_us is None else at_us)
    values: dict[str, Any] = {
        "event_id": made,
        "command_id": command_id,
        "index": index,
        "outcome": outcome,
        "final": final,
        "sent": "yes",
        "order_live": {"canceled": False, "already_closed": False, "cancel_rejected": True}.get(outcome),
        "symbol": "BTC-USD",
        "cl_ord_id": None,
        "orig_cl_ord_id": None,
        "order_id": None,
        "order": None,
        "report": None,
        "error": None,
        "supersedes": None,
        "late": False,
        "attempt": 1,
        "lane": "cancel",
        "worker": "test",
        "session_id": None,
        "user_id": None,
        "app_id": None,
        "reason": None,
        "times": Times(at, at, at, at, at),
    }
    ledger = more.pop("mass", None)
    if ledger is not None:
        more["mass"] = msgspec.Raw(msgspec.json.encode(ledger))
    return Event(**(values | more))


def ledger(**counts: Any) -> dict[str, Any]:
    """The ``mass`` object (contract section 5)."""
    empty: dict[str, Any] = {"matched": 0, "canceled": 0, "already_closed": 0, "rejected": 0, "unknown": 0, "unsent": 0}
    return empty | {"remaining": [], "sweeps": 1, "restarted": False, "elapsed_ms": 12.5} | counts


async def publish_event(broker: Broker, event: Event, **properties: Any) -> None:
    """Put an event on the results exchange as a worker would."""
    await broker.publish(
        broker.name("cancel.results"),
        wire.routing_key(event.outcome, event.final, event.symbol),
        wire.encode_event(event),
        message_id=event.event_id,
        timestamp_s=int(time.time()),
        **properties,
    )
