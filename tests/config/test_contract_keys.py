"""The keys and defaults that the contract names (sections 1 and 6)."""

from __future__ import annotations

from worker.config import Config

CONTRACT: dict[str, dict[str, object]] = {
    "broker": {
        "declare": True,
        "heartbeat": 5,
        "prefetch": 500,
        "max_body": 1024 * 1024,
        "max_inflight": 20_000,
        "suspect_after": 10,
        "commands_exchange": "cancel.commands",
        "commands_queue": "cancel.commands",
        "cancel_key": "cancel",
        "kill_queue": "cancel.kill",
        "kill_key": "kill",
        "delivery_limit": 100_000,
        "overflow": "reject-publish",
        "dead_letter_strategy": "at-least-once",
        "dead_exchange": "cancel.dead",
        "dead_queue": "cancel.dead",
        "dead_delivery_limit": 100_000,
        "results_exchange": "cancel.results",
        "audit_queue": "cancel.audit",
        "audit_key": "#",
        "audit_max_age": "30D",
        "audit_max_length_bytes": 20_000_000_000,
        "audit_segment_bytes": 100_000_000,
    },
    "kill": {"prefetch": 200, "max_inflight": 50_000, "rate_limit": 0.0, "max_age": 60.0, "customer_users": None},
    "venue": {
        "sessions": 2,
        "report_sessions": 0,
        "max_batch": 20,
        "rate_limit": 0.0,
        "report_timeout": 5.0,
        "pending_timeout": 30.0,
        "doubt_window": 300.0,
        "unknown_wait": 5.0,
        "lookback": 900.0,
        "overlap": 60.0,
        "order_horizon": 30 * 86_400.0,
        "resend_id": "same",
        "target": "order_id",
        "refusal_codes": (1,),
        "report_fanout": "unknown",
        "reconnect_min": 0.1,
        "reconnect_max": 30.0,
        "auth_attempts": 3,
        "auth_retry_min": 30.0,
        "fatal_statuses": (401, 403),
        "ping_interval": 1.0,
        "ping_timeout": 2.0,
        "unavailable_after": 5.0,
        "statuses_form": "none",
        "page_array": "streams",
        "signature_alphabet": "url",
        "signature_padding": True,
    },
    "results": {"confirm_timeout": 10.0, "reply_to": True},
    "authorization": {"cancel_users": None, "kill_users": None, "mass_cancel_users": None, "requeue_users": None},
    "shutdown": {"grace": 15.0},
    "ops": {"host": "127.0.0.1", "port": 8080},
    "log": {"level": "info", "format": "json"},
}


def test_the_contract_s_keys_have_the_contract_s_defaults() -> None:
    config = Config()
    found = {
        section: {key: getattr(getattr(config, section), key) for key in keys} for section, keys in CONTRACT.items()
    }
    assert found == CONTRACT
