"""The AsyncAPI 3 document: what flows through the broker, under the configured names (contract sections 1 to 3)."""

from __future__ import annotations

from typing import Any, Final

from worker.config import Broker
from worker.wire.body import MAX_ITEMS
from worker.wire.command import CANCEL, MASS_CANCEL
from worker.wire.event import command_event_id, final_id
from worker.wire.schema import Schema, cancel_schema, events_schema, mass_cancel_schema, request_schema

_COMMAND_ID: Final = "5f0c7c1e-6a5b-4a83-9a53-0b9f0f6c2d11"
_MASS_ID: Final = "0a6f3c52-4a1d-4f0e-8f5b-6f1f4f9b7c20"
_ORDER_ID: Final = "16a55364-4248-4575-aa0b-dddd3f694ca3"
_SHA256: Final = "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"
_BINDING: Final = "0.3.0"


def asyncapi(broker: Broker, version: str) -> dict[str, Any]:
    """The whole document; ``version`` is the program's."""
    return {
        "asyncapi": "3.1.0",
        "id": "urn:cancel-worker",
        "info": {
            "title": "cancel-worker",
            "version": version,
            "description": (
                "Takes order-cancel commands from RabbitMQ to a trading venue and publishes exactly one final event "
                "per cancel. Consumers drop event ids that they have seen, and ignore fields that they do not know."
            ),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "broker": {
                "host": "localhost:5672",
                "protocol": "amqp",
                "protocolVersion": "0.9.1",
                "description": "RabbitMQ, 3.10 to 4.x.",
            }
        },
        "channels": _channels(broker),
        "operations": _operations(),
        "components": {"messages": _messages(), "schemas": _schemas()},
    }


def _exchange(name: str, kind: str) -> dict[str, Any]:
    exchange = {"name": name, "type": kind, "durable": True, "autoDelete": False}
    return {"amqp": {"is": "routingKey", "exchange": exchange, "bindingVersion": _BINDING}}


def _queue(name: str) -> dict[str, Any]:
    queue = {"name": name, "durable": True, "exclusive": False, "autoDelete": False}
    return {"amqp": {"is": "queue", "queue": queue, "bindingVersion": _BINDING}}


def _carrying(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _channels(broker: Broker) -> dict[str, Any]:
    commands = _carrying(CANCEL, MASS_CANCEL)
    return {
        "cancelLane": {
            "address": broker.cancel_key,
            "title": "Normal lane",
            "description": f"Commands, to AMQP exchange {broker.commands_exchange}; queue {broker.commands_queue}.",
            "messages": commands,
            "bindings": _exchange(broker.commands_exchange, "direct"),
        },
        "killLane": {
            "address": broker.kill_key,
            "title": "Kill lane",
            "description": f"The same, always served before the normal lane; queue {broker.kill_queue}.",
            "messages": commands,
            "bindings": _exchange(broker.commands_exchange, "direct"),
        },
        "results": {
            "address": "{kind}.{outcome}.{symbol}",
            "title": "Events",
            "description": "All events. A queue of yours must not be declared with overflow reject-publish.",
            "messages": _carrying("Event"),
            "parameters": {
                "kind": {"enum": ["final", "info"], "description": "final for the one event that ends a cancel."},
                "outcome": {"description": "The event's outcome."},
                "symbol": {"description": "The symbol with . * # as _, or _ where there is none."},
            },
            "bindings": _exchange(broker.results_exchange, "topic"),
        },
        "audit": {
            "address": broker.audit_queue,
            "title": "Audit stream",
            "description": f"Every event, replayable for {broker.audit_max_age} from any offset; a stream queue.",
            "messages": _carrying("Event"),
            "bindings": _queue(broker.audit_queue),
        },
        "deadLetters": {
            "address": broker.dead_queue,
            "title": "Dead letters",
            "description": "Commands that could not be carried out: body and headers kept.",
            "messages": commands,
            "bindings": _queue(broker.dead_queue),
        },
    }


def _operations() -> dict[str, Any]:
    def on(action: str, channel: str, title: str, binding: dict[str, Any]) -> dict[str, Any]:
        bindings = {"amqp": binding | {"bindingVersion": _BINDING}}
        return {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
            "title": title,
            "bindings": bindings,
        }

    publish = {"deliveryMode": 2, "mandatory": True, "timestamp": True}
    return {
        "takeCancels": on("receive", "cancelLane", "Take commands of the normal lane", {"ack": True}),
        "takeKills": on("receive", "killLane", "Take commands of the kill lane", {"ack": True}),
        "publishEvents": on("send", "results", "Publish events, with confirms", publish),
        "deadLetter": on("send", "deadLetters", "Leave what could not be carried out", {"deliveryMode": 2}),
        "findOwnFinal": on("receive", "audit", "Look for a mass cancel's own final after a redelivery", {"ack": True}),
    }


def _messages() -> dict[str, Any]:
    headers = {
        "type": "object",
        "properties": {
            "reason": {"type": "string", "description": "Why; copied into the events."},
            "deadline": {"type": "string", "description": "ISO-8601 with zone, or AMQP timestamp: not sent after it."},
            "traceparent": {"type": "string"},
            "tracestate": {"type": "string"},
        },
    }
    event_headers = {
        "type": "object",
        "required": ["final"],
        "properties": {
            "command_id": {"type": "string"},
            "final": {"type": "boolean"},
            "traceparent": {"type": "string"},
        },
    }
    return {
        CANCEL: {
            "name": CANCEL,
            "title": "Cancel orders",
            "summary": f"1 to {MAX_ITEMS} cancels; the AMQP message_id is the command id. JSON or MessagePack.",
            "contentType": "application/json",
            "headers": headers,
            "payload": {"$ref": f"#/components/schemas/{CANCEL}"},
            "examples": [
                {
                    "name": "oneOrder",
                    "payload": {
                        "type": CANCEL,
                        "data": [
                            {
                                "Symbol": "BTC-USD",
                                "ClOrdID": "c0be17e0-15da-11ec-b5e7-7f4881f01b7d",
                                "OrderID": _ORDER_ID,
                                "TransactTime": "2021-09-15T04:09:42.238000Z",
                            }
                        ],
                    },
                },
                {
                    "name": "byClOrdID",
                    "payload": {"type": CANCEL, "data": [{"Symbol": "ETH-USD", "OrigClOrdID": "A-1"}]},
                },
            ],
        },
        MASS_CANCEL: {
            "name": MASS_CANCEL,
            "title": "Cancel everything in scope until verified flat",
            "contentType": "application/json",
            "headers": headers,
            "payload": {"$ref": f"#/components/schemas/{MASS_CANCEL}"},
            "examples": [
                {
                    "name": "allOrders",
                    "payload": {"type": MASS_CANCEL, "data": [{"MassCancelRequestType": "AllOrders"}]},
                },
                {
                    "name": "oneSideOfOneSymbol",
                    "payload": {
                        "type": MASS_CANCEL,
                        "data": [{"MassCancelRequestType": "Security", "Symbol": "BTC-USD", "Side": "Buy"}],
                    },
                },
            ],
        },
        "Event": {
            "name": "Event",
            "title": "Event",
            "summary": "The AMQP message_id is event_id, correlation_id the command's, type the outcome.",
            "contentType": "application/json",
            "headers": event_headers,
            "payload": {"$ref": "#/components/schemas/Event"},
            "examples": [
                {"name": name, "headers": {"final": payload["final"]}, "payload": payload}
                for name, payload in _event_examples().items()
            ],
        },
    }


def _event_examples() -> dict[str, dict[str, Any]]:
    times = {
        "enqueued": "2021-09-15T04:09:42.000000Z",
        "received": "2021-09-15T04:09:42.238412Z",
        "sent": None,
        "reported": None,
        "published": "2021-09-15T04:09:42.291007Z",
    }
    common: dict[str, Any] = {
        "event_id": final_id(_COMMAND_ID, 0),
        "command_id": _COMMAND_ID,
        "index": 0,
        "outcome": "canceled",
        "final": True,
        "sent": "yes",
        "order_live": False,
        "symbol": "BTC-USD",
        "cl_ord_id": "c0be17e0-15da-11ec-b5e7-7f4881f01b7d",
        "orig_cl_ord_id": None,
        "order_id": _ORDER_ID,
        "order": None,
        "report": None,
        "error": None,
        "supersedes": None,
        "late": False,
        "attempt": 1,
        "lane": "cancel",
        "worker": "host-1-4711-0c5b1f7a",
        "session_id": "1109RQ13KXR00",
        "user_id": "risk",
        "app_id": None,
        "reason": None,
        "times": times,
    }
    nothing: dict[str, Any] = {"sent": "never", "cl_ord_id": None, "order_id": None, "session_id": None, "attempt": 0}
    error = {"field": "data", "rule": "required", "message": "data: required; received nothing"}
    ledger = {"matched": 2, "canceled": 1, "already_closed": 1, "rejected": 0, "unknown": 0, "unsent": 0}
    scope: dict[str, Any] = {"MassCancelRequestType": "AllOrders", "Symbol": None, "Side": None, "CustomerUser": None}
    scope["customer_users"] = None
    return {
        "canceled": common
        | {
            "order": {
                "status": "Canceled",
                "cum_qty": "0.1",
                "leaves_qty": "0",
                "avg_px": "61250.00",
                "as_of": "2021-09-15T04:09:42.280000Z",
            },
            "report": {"ExecType": "Canceled", "OrderID": _ORDER_ID, "CumQty": "0.1"},
            "times": times | {"sent": "2021-09-15T04:09:42.239001Z", "reported": "2021-09-15T04:09:42.290733Z"},
        },
        "invalid": common
        | nothing
        | {
            "event_id": command_event_id(_COMMAND_ID, _SHA256, "invalid"),
            "index": None,
            "outcome": "invalid",
            "order_live": None,
            "symbol": None,
            "error": error,
        },
        "verifiedFlat": common
        | nothing
        | {
            "event_id": final_id(_MASS_ID, 0),
            "command_id": _MASS_ID,
            "outcome": "mass_canceled",
            "sent": "yes",
            "lane": "kill",
            "mass": ledger | {"remaining": [], "sweeps": 2, "restarted": False, "elapsed_ms": 412.5},
            "scope": scope,
        },
    }


def _schemas() -> dict[str, Schema]:
    event = {name: value for name, value in events_schema().items() if name not in ("$schema", "$id")}
    return {
        CANCEL: request_schema(CANCEL, cancel_schema(), MAX_ITEMS),
        MASS_CANCEL: request_schema(MASS_CANCEL, mass_cancel_schema(), 1),
        "Event": event,
    }
