"""JSON Schema (draft 7) of commands and events: the rules of contract sections 2, 3 and 5 for other people's tools.

What a schema can't say is said in its descriptions: no key twice in one object, ClOrdIDs unique within a command. The
worker does not read by these schemas; tests hold them to what it does read and publish.
"""

from __future__ import annotations

from typing import Any, Final, get_args

from worker.wire import rules
from worker.wire.body import MAX_ITEMS
from worker.wire.command import CANCEL, MASS_CANCEL, MassCancelRequestType
from worker.wire.event import FINAL_OUTCOMES, Outcome, Sent
from worker.wire.item import MAX_CL_ORD_ID, MAX_SYMBOL, MAX_TARGET_ID

Schema = dict[str, Any]

DRAFT: Final = "http://json-schema.org/draft-07/schema#"
_END: Final = r"(?![\s\S])"  # a dollar would let a final newline through in some dialects
_TIME: Final = (
    r"^(?:[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,9})?)?"
    r"|[0-9]{8}[Tt][0-9]{4}(?:[0-9]{2}(?:[.,][0-9]{1,9})?)?)(?:[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)" + _END
)
_UTC: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z" + _END
_MASS: Final = ("mass_progress", "mass_canceled", "mass_incomplete")
_WORKER: Final = ("worker_unavailable", "worker_available")


def _visible(limit: int, description: str) -> Schema:
    return {"type": "string", "pattern": f"^[!-~]{{1,{limit}}}{_END}", "description": description}


def _or_null(schema: Schema) -> Schema:
    return schema | {"type": [schema["type"], "null"]}


def _enum(*words: str, description: str) -> Schema:
    return {"type": "string", "enum": list(words), "description": description}


# -- commands


def cancel_schema() -> Schema:
    """A cancel: one item of an OrderCancelRequest. null means absent; unknown fields are ignored."""
    time = {"type": "string", "pattern": _TIME}
    return {
        "type": "object",
        "title": "Cancel",
        "description": "One order to cancel. null means absent; unknown fields are ignored; no key may stand twice.",
        "required": ["Symbol"],
        "properties": {
            "Symbol": _visible(MAX_SYMBOL, "Symbol of the order, such as BTC-USD."),
            "ClOrdID": _or_null(
                _visible(
                    MAX_CL_ORD_ID,
                    "Id of this cancel, unique within the command. Absent: derived from the command id and the index, "
                    "the same at every redelivery.",
                )
            ),
            "OrderID": _or_null(_visible(MAX_TARGET_ID, "The venue's id of the order. Sent if both ids are given.")),
            "OrigClOrdID": _or_null(_visible(MAX_TARGET_ID, "ClOrdID under which the order was placed.")),
            "TransactTime": _or_null(
                time | {"description": "ISO-8601 with zone; absent: stamped by the worker; sent as UTC."}
            ),
            "Timestamp": _or_null(time | {"description": "ISO-8601 with zone; forwarded as it is."}),
        },
        "anyOf": [
            {"required": [name], "properties": {name: {"type": "string"}}} for name in ("OrderID", "OrigClOrdID")
        ],
    }


def mass_cancel_schema() -> Schema:
    """The one item of an OrderMassCancelRequest (contract section 5)."""
    plain = {"type": "string", "pattern": r"^[^\u0000-\u001f\u007f-\u009f]{1,255}" + _END}
    return {
        "type": "object",
        "title": "MassCancel",
        "description": "Which orders to cancel until verified flat. null means absent; unknown fields are ignored.",
        "required": ["MassCancelRequestType"],
        "properties": {
            "ClOrdID": _or_null(_visible(MAX_CL_ORD_ID, "Id of the mass cancel; stands for a missing message_id.")),
            "MassCancelRequestType": _enum(
                "AllOrders", "Security", description="Required, so that a missing filter can't mean everything."
            ),
            "Symbol": _or_null(_visible(MAX_SYMBOL, "Required with Security, absent with AllOrders.")),
            "Side": {"enum": ["Buy", "Sell", None], "description": "Only this side."},
            "CustomerUser": _or_null(plain | {"description": "Only this user's orders."}),
        },
        "if": {"properties": {"MassCancelRequestType": {"const": "Security"}}},
        "then": {"required": ["Symbol"], "properties": {"Symbol": {"type": "string"}}},
        "else": {"properties": {"Symbol": {"type": "null"}}},
    }


def request_schema(kind: str, item: Schema, most: int) -> Schema:
    """The envelope of a command: the venue's own request."""
    return {
        "type": "object",
        "title": kind,
        "required": ["type", "data"],
        "properties": {
            "type": {"const": kind},
            "reqid": {"description": "Accepted whatever it is, and ignored: the worker assigns its own."},
            "data": {"type": "array", "minItems": 1, "maxItems": most, "items": item},
        },
    }


def commands_schema() -> Schema:
    """A command's body, whichever of the two kinds."""
    return {
        "$schema": DRAFT,
        "$id": "urn:cancel-worker:commands",
        "title": "Command",
        "description": (
            "Body of a message on the command lanes, as JSON or MessagePack. The AMQP property message_id is the "
            f"command id ({rules.MESSAGE_ID}); absent: the first cancel's ClOrdID. The headers reason, deadline "
            "(ISO-8601 with zone, or AMQP timestamp), traceparent and tracestate are carried into the events. "
            "One invalid item spoils nothing but itself; no key may stand twice in one object."
        ),
        "oneOf": [
            request_schema(CANCEL, cancel_schema(), MAX_ITEMS),
            request_schema(MASS_CANCEL, mass_cancel_schema(), 1),
        ],
    }


# -- events


def _text(description: str) -> Schema:
    return {"type": "string", "description": description}


def _maybe(description: str) -> Schema:
    return {"type": ["string", "null"], "description": description}


def _record(description: str, properties: Schema, *, nullable: bool = False) -> Schema:
    return {
        "type": ["object", "null"] if nullable else "object",
        "description": description,
        "required": list(properties),
        "properties": properties,
    }


def mass_ledger_schema() -> Schema:
    """``mass``: the ledger of a mass cancel (contract section 5)."""
    count = {"type": "integer", "minimum": 0}
    counts = ("matched", "canceled", "already_closed", "rejected", "unknown", "unsent")
    return _record(
        "Ledger of a mass cancel: matched is the sum of the five counts after it.",
        dict.fromkeys(counts, count)
        | {
            "remaining": {"type": "array", "items": {"type": "string"}, "description": "OrderIDs of the survivors."},
            "sweeps": count,
            "restarted": {"type": "boolean", "description": "Begun anew after a redelivery."},
            "elapsed_ms": {"type": "number", "minimum": 0},
        },
    )


def mass_scope_schema() -> Schema:
    """``scope``: what a mass cancel was asked to cover (contract section 5)."""
    return _record(
        "What a mass cancel covers, as its command put it; only in its own events.",
        {
            "MassCancelRequestType": _enum(*get_args(MassCancelRequestType), description="As the command has it."),
            "Symbol": _maybe("With Security."),
            "Side": _maybe("null: both."),
            "CustomerUser": _maybe("As the command has it."),
            "customer_users": {
                "type": ["array", "null"],
                "items": {"type": "string"},
                "description": "Whose orders, the worker's kill.customer_users included; null: everybody's.",
            },
        },
    )


def _error_schema() -> Schema:
    message = _text("For people.")
    forms: list[Schema] = [
        {"field": _maybe("What is wrong."), "rule": _text("Which rule it breaks."), "message": message},
        {
            "reason": {"type": ["string", "number", "null"], "description": "CxlRejReason, as the venue wrote it."},
            "text": _maybe("The venue's own words."),
            "message": message,
        },
        {
            "code": {"type": ["string", "integer", "null"], "description": "The venue's code, or a word of ours."},
            "msg": _maybe("The venue's own words."),
            "message": message,
        },
    ]
    return {
        "description": "Why, in one of three forms; null where nothing went wrong.",
        "oneOf": [{"type": "null"}, *({"type": "object", "required": list(f), "properties": f} for f in forms)],
    }


def event_properties() -> Schema:
    """The fields of an event, in the order in which they are published."""
    live = "What was last proven: the order works, works no more, or (null) it is not known."
    utc = {"type": ["string", "null"], "pattern": _UTC}
    return {
        "event_id": {"type": "string", "format": "uuid", "description": "Drop an id that you have seen."},
        "command_id": _maybe("null in events about the worker, and for commands without a usable id."),
        "index": {
            "type": ["integer", "null"],
            "minimum": 0,
            "description": "Position in data; null: about the command as a whole, the final of all its cancels.",
        },
        "outcome": _enum(*get_args(Outcome), description="What became of the request."),
        "final": {"type": "boolean", "description": "Marks the one event that ends a cancel."},
        "sent": _enum(*get_args(Sent), description="Whether a byte of the cancel ever left."),
        "order_live": {"type": ["boolean", "null"], "description": live},
        "symbol": _maybe("Of the cancel."),
        "cl_ord_id": _maybe("ClOrdID of the cancel."),
        "orig_cl_ord_id": _maybe("ClOrdID under which the order was placed."),
        "order_id": _maybe("The venue's id of the order."),
        "order": _record(
            "What was last proven of the order; quantities as the venue wrote them.",
            {
                "status": _maybe("OrdStatus."),
                "cum_qty": _maybe("Filled so far."),
                "leaves_qty": _maybe("Still open."),
                "avg_px": _maybe("Average price of what was filled."),
                "as_of": _maybe("The venue's time of it."),
            },
            nullable=True,
        ),
        "report": {
            "type": ["object", "null"],
            "description": "The venue's ExecutionReport that told it, every byte of its JSON kept.",
        },
        "error": _error_schema(),
        "supersedes": _maybe("event_id of the unresolved that this final replaces; ignore one you never saw."),
        "late": {"type": "boolean", "description": "Came after the final."},
        "attempt": {"type": "integer", "minimum": 0, "description": "Counts sends."},
        "lane": {"enum": ["cancel", "kill", None], "description": "The lane of the command."},
        "worker": _text("Who published it; unique per process."),
        "session_id": _maybe("The venue's id of the session."),
        "user_id": _maybe("The publisher's, checked by the broker."),
        "app_id": _maybe("The publisher's."),
        "reason": _maybe("The command's header of that name."),
        "times": _record(
            "UTC; null where the step has not happened.",
            dict.fromkeys(("enqueued", "received", "sent", "reported", "published"), utc),
        ),
        "deadline": _text("The command's, as it was written; only if it had one."),
        "traceparent": _text("The command's; only if it had one."),
        "tracestate": _text("The command's; only if it had one."),
        "mass": mass_ledger_schema(),
        "scope": mass_scope_schema(),
    }


_OPTIONAL: Final = frozenset({"deadline", "traceparent", "tracestate", "mass", "scope"})


def events_schema() -> Schema:
    """An event's body. Ignore fields that are not in it: they may come to be."""
    properties = event_properties()

    def where(*outcomes: str) -> Schema:
        return {"properties": {"outcome": {"enum": sorted(outcomes)}}}

    return {
        "$schema": DRAFT,
        "$id": "urn:cancel-worker:events",
        "title": "Event",
        "description": "Body of a message on the results exchange. Ignore fields that are not named here.",
        "type": "object",
        "required": [name for name in properties if name not in _OPTIONAL],
        "properties": properties,
        "allOf": [
            {
                "if": where(*FINAL_OUTCOMES),
                "then": {"properties": {"final": {"const": True}}},
                "else": {"properties": {"final": {"const": False}}},
            },
            {"if": where(*_MASS), "then": {"required": ["mass", "scope"], "properties": {"index": {"const": 0}}}},
            {"if": where(*_WORKER), "then": {"properties": {"command_id": {"type": "null"}}}},
        ],
    }
