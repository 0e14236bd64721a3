"""A mass cancel as its operator sees it: what is asked, what its events say, and what they prove (contract section 5).

Pure, so that every sequence of events can be tried.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from worker.cli.ledger import counts_of
from worker.cli.request import JSON
from worker.core.snapshot import Scope
from worker.errors import UsageError
from worker.wire.command import MASS_CANCEL, InvalidCommand, MassCancelCommand, read_command
from worker.wire.event import final_id, routing_key, unresolved_id
from worker.wire.properties import Properties, is_command_id
from worker.wire.rules import MESSAGE_ID
from worker.wire.seen import SeenEvent, SeenMass, SeenScope

OUTCOMES: Final = ("mass_progress", "mass_canceled", "mass_incomplete", "unresolved", "invalid", "unauthorized")


class MassRequest(Struct, frozen=True):
    """A mass cancel ready to be published: ``body`` is JSON."""

    command_id: str
    body: bytes
    symbol: str | None
    side: str | None
    customer_user: str | None

    @property
    def scope(self) -> str:
        """What it covers, for people."""
        side = f"{self.side} " if self.side else ""
        where = f" in {self.symbol}" if self.symbol else ""
        whose = f" of {self.customer_user}" if self.customer_user else ""
        return f"every open {side}order{where}{whose} that the worker's API key sees"

    def covers(self, customer_users: tuple[str, ...] | None) -> Scope:
        """The worker's own reading of it; ``customer_users`` is ``kill.customer_users``."""
        users = (self.customer_user,) if self.customer_user is not None else customer_users
        return Scope(self.symbol, self.side, users)

    def routing_keys(self) -> list[str]:
        """What to bind a queue with to hear of it, and of little else: of single orders its ledger tells enough."""
        keys = [routing_key(outcome, outcome != "mass_progress", self.symbol) for outcome in OUTCOMES]
        keys += [routing_key(outcome, True, None) for outcome in ("invalid", "unauthorized")]
        keys += [routing_key(outcome, False, None) for outcome in ("worker_unavailable", "worker_available")]
        return list(dict.fromkeys(keys))


def mass_request(
    command_id: str,
    cl_ord_id: str,
    everything: bool,
    symbol: str | None,
    side: str | None,
    customer_user: str | None,
    max_body: int,
) -> MassRequest:
    """The request for these options, as the worker will read it. Raises UsageError with what would be ``invalid``."""
    if not is_command_id(command_id):
        raise UsageError(f"--command-id: {MESSAGE_ID}")
    if everything == (symbol is not None):
        raise UsageError("which orders? give either --all or --symbol, so that a missing one can't mean everything")
    fields = {
        "ClOrdID": cl_ord_id,
        "MassCancelRequestType": "AllOrders" if everything else "Security",
        "Symbol": symbol,
        "Side": side,
        "CustomerUser": customer_user,
    }
    data = {name: value for name, value in fields.items() if value is not None}
    body = msgspec.json.encode({"type": MASS_CANCEL, "data": [data]})
    verdict = read_command(body, Properties(content_type=JSON, message_id=command_id), max_body)
    if isinstance(verdict, InvalidCommand):
        raise UsageError(verdict.rejection.message)
    assert isinstance(verdict, MassCancelCommand)
    return MassRequest(command_id, body, symbol, side, customer_user)


class Progress:
    """The events of one mass cancel, each ``event_id`` once: the latest ledger, and the final."""

    def __init__(self, asked: MassRequest) -> None:
        self._asked = asked
        self._seen: set[str] = set()
        self.mass: SeenMass | None = None
        self.scope: SeenScope | None = None
        self.final: SeenEvent | None = None

    def take(self, event: SeenEvent) -> bool:
        """Note an event; False if it tells nothing of this mass cancel as a whole, or came before."""
        if event.command_id != self._asked.command_id or event.event_id in self._seen:
            return False
        is_end = event.final and (event.index is None or event.event_id in self._ends())
        if not is_end and event.outcome != "mass_progress":
            return False  # about one of its orders
        self._seen.add(event.event_id)
        if self.final is None:
            self.final = event if is_end else None
            self.mass = event.mass or self.mass
            self.scope = event.scope or self.scope
        return True

    def _ends(self) -> tuple[str, str]:
        command_id = self._asked.command_id
        return final_id(command_id, 0), unresolved_id(command_id, 0)

    @property
    def is_flat(self) -> bool:
        """Proven: no open order in scope."""
        return self.final is not None and self.final.outcome == "mass_canceled" and not self.remaining

    @property
    def remaining(self) -> tuple[str, ...]:
        """OrderIDs not proven closed, as far as is known."""
        return self.mass.remaining if self.mass is not None else ()

    @property
    def survivors_finals(self) -> dict[str, str]:
        """Ids of the events that say what became of the survivors, and their OrderIDs."""
        command_id = self._asked.command_id
        keys = [(order_id, f"order {order_id}") for order_id in self.remaining]
        return {make_id(command_id, key): order_id for order_id, key in keys for make_id in (final_id, unresolved_id)}

    @property
    def _narrowed(self) -> str:
        """Whose orders alone the worker covered, by its own ``kill.customer_users``: more was asked for."""
        users = self.scope.customer_users if self.scope is not None else None
        if users is None or self._asked.customer_user is not None:
            return ""
        return f", only those of {', '.join(users)} (kill.customer_users)"

    def conclusion(self) -> str:
        """The one line that counts, and what it covers."""
        counts = f" ({counts_of(self.mass)})" if self.mass is not None else ""
        covered = f"{self._asked.scope}{self._narrowed}, submitted before the deadline"
        if self.final is None:
            return f"NOT VERIFIED{counts}: no final event came. Asked for: {covered}."
        if self.is_flat:
            nothing = self.mass is not None and not self.mass.matched and not self.mass.restarted
            return f"{'NOTHING MATCHED' if nothing else 'VERIFIED FLAT'}{counts}. Covered: {covered}."
        told = f": {self.final.told}" if self.final.told else ""
        return f"NOT FLAT{counts}: {self.final.outcome}{told}. Asked for: {covered}."
