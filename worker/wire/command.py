"""AMQP body and properties to a command (contract section 2 and 5)."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

Lane: TypeAlias = Literal["kill", "cancel"]
"""The two queues a command may come from. No frame mixes them (contract promise 5)."""

MassCancelRequestType: TypeAlias = Literal["AllOrders", "Security"]
Side: TypeAlias = Literal["Buy", "Sell"]


class Properties(Struct, frozen=True):
    """The AMQP basic properties of one delivery, decoded.

    `headers` holds str, int, bool, float, aware datetime (AMQP type `T`), bytes, list, dict and None.
    `timestamp_s` is in seconds since the epoch, whatever the publisher wrote: read_command judges it.
    """

    content_type: str | None = None
    message_id: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    timestamp_s: int | None = None
    headers: dict[str, object] = {}


class Rejection(Struct, frozen=True):
    """Why something is `invalid`: the `error` of that event (contract section 3).

    `field` is the name as the publisher wrote it (`Symbol`, `data`, `message_id`, `body`), `rule` one of the
    constants of worker.wire.rules, `message` a sentence for people with what was received, bounded and escaped.
    """

    field: str
    rule: str
    message: str


class CancelItem(Struct, frozen=True, gc=False):
    """One valid cancel. At least one of `order_id` and `orig_cl_ord_id` is set.

    `transact_time` is in the venue's form (UTC, microseconds, `Z`), None: stamp it when sending.
    `timestamp` is forwarded as the publisher wrote it.
    """

    index: int
    symbol: str
    cl_ord_id: str
    order_id: str | None
    orig_cl_ord_id: str | None
    transact_time: str | None
    timestamp: str | None


class InvalidItem(Struct, frozen=True, gc=False):
    """One cancel that will not be sent, with those of its ids that were valid, for its event."""

    index: int
    rejection: Rejection
    symbol: str | None = None
    cl_ord_id: str | None = None
    order_id: str | None = None
    orig_cl_ord_id: str | None = None


class Context(Struct, frozen=True):
    """What a command carries besides its cancels: copied into its events (contract section 2, last paragraph).

    Times are UTC microseconds since the epoch. Every string can be encoded as UTF-8. `command_id` is None only in
    an InvalidCommand that has no usable one. `correlation_id` is the command id if the publisher gave none.
    `requeue_of` not None means that the command was requeued from `cancel.dead`, `original_user` by whom it was
    published first. `delivery_count` is the broker's `x-delivery-count`, 0 if absent or no count.
    """

    command_id: str | None
    correlation_id: str | None = None
    reply_to: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    reason: str | None = None
    deadline_us: int | None = None
    deadline_text: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    enqueued_us: int | None = None
    has_x_death: bool = False
    requeue_of: str | None = None
    original_user: str | None = None
    delivery_count: int = 0


class CancelCommand(Struct, frozen=True):
    """An `OrderCancelRequest`: 1 to 1000 items; `items[i].index == i`; no ClOrdID stands twice."""

    context: Context
    items: list[CancelItem | InvalidItem]


class MassCancelCommand(Struct, frozen=True):
    """An `OrderMassCancelRequest` (contract section 5). `symbol` is set exactly if `request_type` is `Security`."""

    context: Context
    cl_ord_id: str | None
    request_type: MassCancelRequestType
    symbol: str | None
    side: Side | None
    customer_user: str | None


class InvalidCommand(Struct, frozen=True):
    """A body that is spoilt as a whole: one `invalid` event, identified by `body_sha256_hex`."""

    context: Context
    rejection: Rejection
    body_sha256_hex: str


Command: TypeAlias = CancelCommand | MassCancelCommand | InvalidCommand
