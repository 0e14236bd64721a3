"""Rules that one key's type cannot say: URLs, and keys that must fit together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from worker.config.addresses import parse_venue_url, split_broker_urls
from worker.config.credentials import credential_problem
from worker.config.structs import Config


class Check(NamedTuple):
    """``problem(config)`` is what follows the first of ``keys`` in an error, None if all is well."""

    keys: tuple[str, ...]
    problem: Callable[[Config], str | None]


def checks() -> Iterator[Check]:
    """All checks, in the order of the sections."""
    yield Check(("broker.url",), _broker_url)
    yield Check(("broker.key_file", "broker.cert_file"), _client_certificate)
    yield _ordered("broker.reconnect_min", "broker.reconnect_max")
    yield Check(("broker.delivery_limit", "broker.suspect_after"), _delivery_limit)
    yield Check(("broker.dead_letter_strategy", "broker.overflow"), _dead_letter_strategy)
    yield _distinct("broker.commands_exchange", "broker.dead_exchange", "broker.results_exchange")
    yield _distinct("broker.commands_queue", "broker.kill_queue", "broker.dead_queue", "broker.audit_queue")
    yield _distinct("broker.cancel_key", "broker.kill_key")
    yield _ordered("broker.audit_segment_bytes", "broker.audit_max_length_bytes")
    yield Check(("venue.url",), _venue_url)
    yield Check(("venue.api_key",), lambda config: credential_problem(config.venue.api_key))
    yield Check(("venue.api_secret",), lambda config: credential_problem(config.venue.api_secret))
    yield _ordered("venue.report_sessions", "venue.sessions")
    yield _ordered("venue.reconnect_min", "venue.reconnect_max")
    yield _ordered("venue.lookup_min", "venue.lookup_max")
    yield Check(("venue.extra_stream_fields",), _extra_stream_fields)
    yield _ordered("results.retry_min", "results.retry_max")


# The worker sets these itself; a filter among them would hide the reports that cancels wait for (protocol 3.2).
_STREAM_FIELDS = frozenset({"name", "StartDate", "EndDate", "Symbol", "Statuses", "OrderID", "RFQID"})


def _ordered(low: str, high: str) -> Check:
    """``low`` must not be above ``high``."""

    def problem(config: Config) -> str | None:
        small, large = _number(config, low), _number(config, high)
        return f"must not be above {high}: {small:.17g} > {large:.17g}" if small > large else None

    return Check((low, high), problem)


def _get(config: Config, name: str) -> object:
    section, key = name.split(".")
    return getattr(getattr(config, section), key)


def _number(config: Config, name: str) -> float:
    value = _get(config, name)
    if not isinstance(value, int | float):
        raise TypeError(f"{name} is no number")
    return value


def _distinct(*names: str) -> Check:
    """No two of ``names`` may have the same value."""

    def problem(config: Config) -> str | None:
        seen: dict[object, str] = {}
        for name in names:
            other = seen.setdefault(_get(config, name), name)
            if other != name:
                return f"and {', '.join(names[1:])} must differ: {other} and {name} are the same"
        return None

    return Check(names, problem)


def _broker_url(config: Config) -> str | None:
    if config.broker.url is None:
        return None
    try:
        split_broker_urls(config.broker.url.reveal())
    except ValueError as error:
        return str(error)
    return None


def _venue_url(config: Config) -> str | None:
    try:
        parse_venue_url(config.venue.url)
    except ValueError as error:
        return str(error)
    return None


def _client_certificate(config: Config) -> str | None:
    if config.broker.key_file is not None and config.broker.cert_file is None:
        return "needs broker.cert_file"
    return None


def _delivery_limit(config: Config) -> str | None:
    limit, suspect = config.broker.delivery_limit, config.broker.suspect_after
    if limit <= suspect:
        # At the limit the broker drops a command without a final event; the worker has to be first (contract 4.6).
        return f"must be above broker.suspect_after: {limit} <= {suspect}"
    return None


def _dead_letter_strategy(config: Config) -> str | None:
    if config.broker.dead_letter_strategy == "at-least-once" and config.broker.overflow != "reject-publish":
        return 'can be "at-least-once" only with broker.overflow "reject-publish": RabbitMQ falls back in silence'
    return None


def _extra_stream_fields(config: Config) -> str | None:
    clash = sorted(_STREAM_FIELDS & config.venue.extra_stream_fields.keys())
    return f"must not set {', '.join(clash)}" if clash else None
