"""How the broker is reached: which URLs, which certificates, how long to wait between attempts.

URLs come from a callable that is asked before every attempt, so that a rotated secret is picked up (contract 6), and
are tried in turn, beginning behind the one that was tried last. Certificate files are read again when they changed.
No error text holds a password.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from worker.broker.link import Link, LinkUser, LogIn
from worker.config.addresses import BrokerAddress, parse_broker_url
from worker.core.backoff import Backoff, Failure
from worker.errors import BrokerError, BrokerRefusedError, ConfigError

REFUSED_LEAST_S: Final = 2.0
"""Seconds between attempts, at least, while the broker refuses our credentials: they may have been rotated just now."""
STABLE_AFTER_S: Final = 5.0
"""Seconds that a link must be up before the waits start over: one that is lost at once is not well."""


class TlsFiles(Struct, frozen=True):
    """PEM files for ``amqps``. ``ca_file`` None: the system's authorities. The broker's name is always verified.

    ``key_file`` None: the key is in ``cert_file``. With ``cert_file`` and a URL without a user, log-in is by
    certificate alone (mechanism EXTERNAL).
    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Read the files now. Raises BrokerError that names the file."""
        try:
            context = ssl.create_default_context(cafile=None if self.ca_file is None else str(self.ca_file))
        except (OSError, ssl.SSLError) as error:
            raise BrokerError(f"broker.ca_file {self.ca_file} can't be used: {_os_text(error)}") from None
        if self.cert_file is not None:
            try:
                context.load_cert_chain(self.cert_file, self.key_file, password=_no_password)
            except (OSError, ssl.SSLError) as error:
                files = " with ".join(str(file) for file in (self.cert_file, self.key_file) if file is not None)
                raise BrokerError(f"broker.cert_file {files} can't be used: {_os_text(error)}") from None
        return context


class Dial:
    """Makes links. One instance may serve all roles; the waits are kept per role, by ``Retry``."""

    def __init__(
        self,
        urls: Callable[[], Sequence[str]],
        *,
        name: str,
        tls: TlsFiles | None = None,
        heartbeat_s: int = 5,
        connect_timeout_s: float = 5.0,
        rpc_timeout_s: float = 10.0,
        reconnect_min_s: float = 0.1,
        reconnect_max_s: float = 10.0,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """``urls`` may raise ConfigError (an unreadable file): that attempt fails then. ``name`` is the worker's.

        ``connect_timeout_s`` limits each attempt on one URL, from the look-up of its name to connection.open-ok.
        """
        self.heartbeat_s = heartbeat_s
        self.connect_timeout_s = connect_timeout_s
        self.rpc_timeout_s = rpc_timeout_s
        self._urls = urls
        self._name = name
        self._tls = tls or TlsFiles()
        self._reconnect_min_s = reconnect_min_s
        self._reconnect_max_s = reconnect_max_s
        self._jitter = jitter
        self._turn: dict[str, int] = {}
        self._context: ssl.SSLContext | None = None
        self._context_of: list[tuple[str, int, int]] = []

    def connection_name(self, role: str) -> str:
        """What operators see: the worker's name and what the connection is for."""
        return f"{self._name} {role}"

    def retry(self) -> Retry:
        """A fresh series of waits."""
        return Retry(Backoff(self._reconnect_min_s, self._reconnect_max_s, 1, REFUSED_LEAST_S), self._jitter)

    def endpoints(self) -> list[Endpoint]:
        """The URLs as they are now, taken apart. Raises BrokerError that says what is wrong with which of them."""
        try:
            urls = self._urls()
        except ConfigError as error:
            raise BrokerError(str(error)) from None
        endpoints = []
        for url in urls:
            try:
                address = parse_broker_url(url)
            except ValueError as error:
                raise BrokerError(f"broker.url {error}") from None
            by_certificate = self._tls.cert_file is not None and address.tls and "@" not in url
            endpoints.append(Endpoint(address, by_certificate))
        if not endpoints:
            raise BrokerError("broker.url must not be empty")
        return endpoints

    def ssl_context(self) -> ssl.SSLContext:
        """The context for ``amqps``, made again if a certificate file changed. Raises BrokerError."""
        tls = self._tls
        seen = []
        for key, file in (("ca_file", tls.ca_file), ("cert_file", tls.cert_file), ("key_file", tls.key_file)):
            if file is None:
                continue
            try:
                stat = file.stat()
            except OSError as error:
                raise BrokerError(f"broker.{key} {file} can't be used: {_os_text(error)}") from None
            seen.append((key, stat.st_mtime_ns, stat.st_size))
        if self._context is None or seen != self._context_of:
            self._context = self._tls.context()
            self._context_of = seen
        return self._context

    async def connect(self, role: str, user: LinkUser) -> Link:
        """One attempt on each URL in turn until one answers; ``role`` follows the worker's name in the connection's.

        Raises BrokerError with the reason of each URL, BrokerRefusedError if all that answered refuse us.
        """
        endpoints = self.endpoints()
        first = self._turn.get(role, 0) % len(endpoints)
        errors: list[BrokerError] = []
        for step in range(len(endpoints)):
            turn = (first + step) % len(endpoints)
            self._turn[role] = turn + 1
            try:
                return await self._connect(endpoints[turn], role, user)
            except BrokerError as error:
                errors.append(error)
        refused = all(isinstance(error, BrokerRefusedError) for error in errors)
        raise (BrokerRefusedError if refused else BrokerError)("; ".join(map(str, errors)))

    async def _connect(self, endpoint: Endpoint, role: str, user: LinkUser) -> Link:
        address = endpoint.address
        log_in = LogIn(
            None if endpoint.by_certificate else address.user,
            address.password,
            address.vhost,
            self.connection_name(role),
            self.heartbeat_s,
        )
        context = self.ssl_context() if address.tls else None
        link: Link | None = None
        try:
            async with asyncio.timeout(self.connect_timeout_s):
                link = Link(log_in, user, self.rpc_timeout_s)
                await asyncio.get_running_loop().create_connection(
                    lambda: link,
                    address.host,
                    address.port,
                    ssl=context,
                    server_hostname=address.host if context else None,
                )
                await link.hand_shake()
        except BaseException as error:
            if link is not None:
                link.drop("not connected")
            if isinstance(error, (OSError, BrokerError)):  # TimeoutError and ssl.SSLError are OSErrors
                raise _told(error, endpoint, self.connect_timeout_s) from None
            raise
        return link


class Endpoint(Struct, frozen=True):
    """One URL. ``by_certificate``: log in by the client certificate alone."""

    address: BrokerAddress
    by_certificate: bool

    def __str__(self) -> str:
        address = self.address
        host = f"[{address.host}]" if ":" in address.host else address.host
        return f"{host}:{address.port}"


class Retry:
    """The waits of one consumer or publisher between its attempts: full jitter, growing, slower after a refusal."""

    def __init__(self, backoff: Backoff, jitter: Callable[[], float]) -> None:
        self._backoff = backoff
        self._jitter = jitter

    def delay_after(self, error: BrokerError | None, up_s: float) -> float:
        """Seconds to wait after an attempt that failed by ``error`` or a link that was up for ``up_s`` seconds."""
        if up_s >= STABLE_AFTER_S:
            self._backoff.reset()
        failure: Failure = "refused" if isinstance(error, BrokerRefusedError) else "failed"
        return self._backoff.next_delay(failure, self._jitter())


def _told(error: OSError | BrokerError, endpoint: Endpoint, limit_s: float) -> BrokerError:
    """The driver's error as ours, with the endpoint, without anything secret."""
    if isinstance(error, BrokerRefusedError):
        return BrokerRefusedError(f"{endpoint}: {error}")
    if isinstance(error, BrokerError):
        return BrokerError(f"{endpoint}: {error}")
    if isinstance(error, TimeoutError):
        return BrokerError(f"{endpoint}: no answer within {limit_s:g} s")
    if isinstance(error, ssl.SSLCertVerificationError):
        return BrokerError(f"{endpoint}: the broker's certificate is not trusted: {error.verify_message}")
    if isinstance(error, socket.gaierror):
        return BrokerError(f"{endpoint}: the name can't be resolved: {error.strerror}")
    return BrokerError(f"{endpoint}: {_os_text(error)}")


def _os_text(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def _no_password() -> str:
    raise ssl.SSLError("the key is encrypted: give one without a passphrase")
