"""The log-in to the venue: three headers on the HTTP upgrade request (protocol sections 1.2 and 1.3).

The string to sign is `GET`, the timestamp, the bare host and the path, joined by LF, with none at the end. The secret
is the HMAC key as text: it is never base64-decoded, though it often could be (protocol 1.4, vector N5).
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode, urlsafe_b64encode
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from worker.wire.timestamp import US_PER_SECOND, format_utc

Alphabet: TypeAlias = Literal["url", "standard"]
"""RFC 4648 section 5 (`-`, `_`) or section 4 (`+`, `/`)."""

Precision: TypeAlias = Literal["micros", "seconds"]


def api_timestamp(utc_us: int, precision: Precision = "micros") -> str:
    """The value of `ApiTimestamp`; whole seconds are cut off, not rounded: never a time to come."""
    return format_utc(utc_us if precision == "micros" else utc_us - utc_us % US_PER_SECOND)


def api_sign(
    secret: str, timestamp: str, host: str, path: str, alphabet: Alphabet = "url", padding: bool = True
) -> str:
    """The value of `ApiSign`: base64 of HMAC-SHA256, 44 characters with padding.

    `timestamp` is byte for byte the value of `ApiTimestamp`; `host` has no scheme and no port, `path` no query and no
    final slash: signed_host_and_path gives both. Raises ValueError, which never quotes the secret.
    """
    key = _visible_ascii("the API secret", secret)
    text = b"\n".join(
        (b"GET", _visible_ascii("the timestamp", timestamp), _visible_ascii("the host", host), _signed_path(path))
    )
    digest = hmac.digest(key, text, hashlib.sha256)
    signature = (urlsafe_b64encode if alphabet == "url" else b64encode)(digest).decode("ascii")
    return signature if padding else signature.rstrip("=")


def upgrade_headers(
    api_key: str, secret: str, timestamp: str, host: str, path: str, alphabet: Alphabet = "url", padding: bool = True
) -> dict[str, str]:
    """The three headers of one upgrade request. Sign anew for every attempt: a timestamp is never used twice.

    Raises ValueError, which quotes neither key nor secret.
    """
    _visible_ascii("the API key", api_key)
    return {
        "ApiKey": api_key,
        "ApiSign": api_sign(secret, timestamp, host, path, alphabet, padding),
        "ApiTimestamp": timestamp,
    }


def signed_host_and_path(url: str) -> tuple[str, str]:
    """What is signed of a `ws://` or `wss://` URL: the bare host, lower-case; the path without its final slashes.

    Raises ValueError without the URL, which may hold a password.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        raise ValueError("the venue URL is malformed") from None
    if parts.scheme not in ("ws", "wss") or not host:
        raise ValueError("the venue URL must be ws:// or wss:// with a host")
    return host, parts.path.rstrip("/") or "/"


def _signed_path(path: str) -> bytes:
    if not path.startswith("/") or "?" in path or (path != "/" and path.endswith("/")):
        raise ValueError("the path must start with a slash, without query and final slash")
    return _visible_ascii("the path", path)


def _visible_ascii(name: str, value: str) -> bytes:
    # A blank or an LF, say of the file a secret was read from, would only show as a refused log-in.
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError(f"{name} must be visible ASCII characters (0x21-0x7E), at least one")
    return value.encode("ascii")
