"""URLs of the venue and of RabbitMQ, taken apart once and strictly. What is wrong is told without quoting the URL."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from worker.config.secret import Secret

_HOST_NAME = re.compile(r"\A[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*\.?\Z")
_VISIBLE = re.compile(r"\A[\x21-\x7e]+\Z")


class VenueAddress(NamedTuple):
    """Parts of ``venue.url``. ``host`` is bare and ``path`` has neither query nor final slash: both are signed so."""

    tls: bool
    host: str
    port: int
    path: str


class BrokerAddress(NamedTuple):
    """Parts of one AMQP URL, percent-decoded; ``vhost`` is ``/`` where the URL names none."""

    tls: bool
    host: str
    port: int
    user: str
    password: Secret
    vhost: str


def parse_venue_url(url: str) -> VenueAddress:
    """``wss://host[:port]/path``, or ``ws://`` for a loopback host (contract 6).

    Raises ValueError with the rule that is broken, fit to follow the key's name.
    """
    parts = _split(url, "wss", "ws")
    if "@" in parts.netloc:
        raise ValueError("must not carry a user or a password")
    host = _host(parts)
    if parts.scheme == "ws" and not is_loopback(host):
        raise ValueError("must begin with wss:// (ws:// is allowed for loopback hosts only)")
    if len(parts.path) < 2 or parts.path.endswith("/"):
        raise ValueError("must end in a path without a final slash, such as /ws/v1")
    tls = parts.scheme == "wss"
    return VenueAddress(tls, host, _port(parts) or (443 if tls else 80), parts.path)


def parse_broker_url(url: str) -> BrokerAddress:
    """``amqp[s]://[user[:password]@]host[:port][/vhost]``; user and password default to ``guest``.

    Raises ValueError with the rule that is broken, never with a part of the URL.
    """
    parts = _split(url, "amqps", "amqp")
    host = _host(parts)
    if "@" in parts.path:
        raise ValueError("must have a / in a password written as %2F, and a @ in a virtual host as %40")
    if "/" in parts.path[1:]:
        raise ValueError("must name one virtual host; a / in its name is written %2F")
    tls = parts.scheme == "amqps"
    return BrokerAddress(
        tls,
        host,
        _port(parts) or (5671 if tls else 5672),
        unquote(parts.username or "guest"),
        Secret(unquote("guest" if parts.password is None else parts.password)),
        unquote(parts.path[1:]) or "/",
    )


def split_broker_urls(text: str) -> list[str]:
    """The URLs of a list separated by ``,``, each checked. Raises ValueError as ``parse_broker_url`` does."""
    urls = [part.strip(" ") for part in text.split(",")]
    for url in urls:
        if not url:
            raise ValueError("must not hold an empty URL between its commas" if len(urls) > 1 else "must not be empty")
        parse_broker_url(url)
    return urls


def is_loopback(host: str) -> bool:
    """True for ``localhost``, 127.0.0.0/8 and ``::1``: traffic to them never leaves the machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _split(url: str, *schemes: str) -> SplitResult:
    # urlsplit drops tabs and newlines in silence, so they are refused before it sees them.
    if not _VISIBLE.match(url):
        raise ValueError("must be a URL of printable ASCII characters without blanks")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("must be a well-formed URL") from None
    if parts.scheme not in schemes or not url[len(parts.scheme) :].startswith("://"):
        raise ValueError("must begin with " + " or ".join(f"{scheme}://" for scheme in schemes))
    if "?" in url or "#" in url:
        raise ValueError("must have no query and no fragment (in a password ? is written %3F and # %23)")
    return parts


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if not host:
        raise ValueError("must name a host")
    if "[" in parts.netloc:
        try:
            scope = ipaddress.IPv6Address(host).scope_id
        except ValueError:
            scope = host
        if scope is not None:
            raise ValueError("must name a host that is valid")
    elif not _HOST_NAME.match(host) or len(host) > 253:
        raise ValueError("must name a host that is valid")
    return host


def _port(parts: SplitResult) -> int | None:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0 or parts.netloc.endswith(":"):
        raise ValueError("must have a port from 1 to 65535, or none")
    return port
