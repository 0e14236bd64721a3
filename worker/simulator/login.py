"""The check of the three upgrade headers (protocol section 1.3), from the protocol text alone."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import NamedTuple

from worker.simulator.script import Login
from worker.simulator.wire import parse_stamp

_FORMAT = re.compile(r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\Z", re.ASCII)


class Refusal(NamedTuple):
    """Why an upgrade is refused: an HTTP status and a text for people, free of secrets."""

    status: int
    text: str


def digest(secret: str, timestamp: str, host: str, path: str) -> bytes:
    """HMAC-SHA256 of the string to sign; the secret is used as text, never decoded."""
    message = "\n".join(("GET", timestamp, host, path))
    return hmac.new(secret.encode("ascii"), message.encode("ascii"), hashlib.sha256).digest()


def accepted_signatures(raw: bytes, login: Login) -> set[str]:
    """Every text under which this digest is taken, by the scripted alphabet and padding."""
    forms: set[str] = set()
    if login.alphabet in ("urlsafe", "both"):
        forms.add(base64.urlsafe_b64encode(raw).decode())
    if login.alphabet in ("standard", "both"):
        forms.add(base64.b64encode(raw).decode())
    if login.padding == "optional":
        forms |= {form.rstrip("=") for form in forms}
    return forms


class Gate:
    """Decides on upgrades; remembers the signatures it has taken, so that a reused one can be refused."""

    def __init__(self, login: Login) -> None:
        self.login = login
        self.secrets: dict[str, str] = {login.key: login.secret}
        self._taken: dict[str, None] = {}

    def check(
        self, *, key: str | None, sign: str | None, timestamp: str | None, host: str, path: str, now_us: int
    ) -> Refusal | None:
        """None lets the client in. `host` is the Host header; it may carry a port, the signed one must not."""
        login = self.login
        if path != login.path:
            return Refusal(404, "no such path")
        if key is None or sign is None or timestamp is None:
            return Refusal(login.refused_status, "ApiKey, ApiSign and ApiTimestamp are required")
        secret = self.secrets.get(key)
        if secret is None:
            return Refusal(login.refused_status, "unknown ApiKey")
        sent_us = parse_stamp(timestamp)
        if not _FORMAT.match(timestamp) or sent_us is None:
            return Refusal(login.refused_status, "ApiTimestamp is not YYYY-MM-DDTHH:MM:SS.ffffffZ")
        if login.clock_skew and abs(now_us - sent_us) > login.clock_skew * 1_000_000:
            return Refusal(login.refused_status, "ApiTimestamp is too far from the venue's clock")
        hosts = login.hosts or (bare_host(host),)
        if not any(sign in accepted_signatures(digest(secret, timestamp, name, path), login) for name in hosts):
            return Refusal(login.refused_status, "wrong ApiSign")
        if login.refuse_reuse and sign in self._taken:
            return Refusal(login.refused_status, "ApiTimestamp and ApiSign were used before")
        self._taken[sign] = None
        if len(self._taken) > 100_000:
            del self._taken[next(iter(self._taken))]
        return None


def bare_host(header: str) -> str:
    """The host of a Host header without its port; brackets of an IPv6 address are dropped."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]
