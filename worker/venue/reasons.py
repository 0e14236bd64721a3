"""Reasons for people: one line, bounded, escaped, and without anything secret (contract 4.8)."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterable
from typing import Final

from websockets.exceptions import PayloadTooBig
from websockets.frames import Close, CloseCode

MOST: Final = 200  # characters quoted of what the other side sent
_MASK: Final = "***"


def quoted(raw: bytes | bytearray | str, secrets: Iterable[str] = ()) -> str:
    """Foreign text on one line: ASCII, at most ``MOST`` characters, secrets masked (a server may echo headers)."""
    text = raw if isinstance(raw, str) else bytes(raw[: 20 * MOST]).decode("utf-8", "replace")
    for secret in secrets:
        if secret:
            text = text.replace(secret, _MASK)
    shown = " ".join(text[:MOST].split()).encode("unicode_escape").decode("ascii")
    return shown[:MOST] + "..." if len(shown) > MOST or len(text) > MOST else shown


def close_frame(close: Close, secrets: Iterable[str] = ()) -> str:
    """The venue's close frame: its code, and the reason it gave."""
    if close.code == CloseCode.NO_STATUS_RCVD:
        return "the venue closed the session without a code"
    reason = quoted(close.reason, secrets)
    return f"the venue closed the session with code {close.code}" + (f": {reason}" if reason else "")


def protocol_error(error: Exception) -> str:
    """Bytes from the venue that are no WebSocket; the texts of the library hold lengths and positions, no payload."""
    if isinstance(error, PayloadTooBig):
        return f"message too big: {error}"
    if isinstance(error, UnicodeDecodeError):
        return "the venue broke the WebSocket protocol: close reason is not UTF-8"
    return f"the venue broke the WebSocket protocol: {quoted(str(error)) or type(error).__name__}"


def network_error(error: BaseException | None) -> str:
    """What the system says of a connection."""
    if error is None:
        return "connection closed"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verification failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return (error.reason or "TLS error").replace("_", " ").lower()
    if isinstance(error, socket.gaierror):
        return str(error.strerror or "name look-up failed").lower()
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, OSError):
        return (os.strerror(error.errno) if error.errno else quoted(str(error)) or type(error).__name__).lower()
    return quoted(str(error)) or type(error).__name__
