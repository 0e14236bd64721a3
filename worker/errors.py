"""Errors that reach a person, each with one line that says what is wrong.

    CancelWorkerError            exit 1
    ├── ConfigError              exit 2   files, environment, secrets: every problem at once
    ├── UsageError               exit 2   a command line that cannot be carried out as given
    ├── TopologyError            exit 2   an AMQP object is missing or has other arguments
    ├── BrokerError              exit 1   RabbitMQ cannot be reached, or refuses
    │   └── BrokerRefusedError   exit 1   it knows us and says no (log-in, permission, vhost)
    ├── VenueError               exit 1   the venue cannot be reached, or breaks its protocol
    │   └── VenueRefusedError    exit 1   the upgrade was answered with a status other than 101
    └── OpsError                 exit 1   the operations endpoint cannot listen

Outcomes of a cancel are values, never exceptions; exceptions are for configuration, lost links and bugs. A driver's
error becomes one of these once, at the shell that uses the driver, with the driver's as its cause. No message ever
holds a secret: whoever raises masks what it quotes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar


class CancelWorkerError(Exception):
    """Root of all errors that this program raises on purpose. ``str(error)`` is fit for a person."""

    exit_status: ClassVar[int] = 1


class ConfigError(CancelWorkerError):
    """The configuration cannot be used (contract 6). ``problems`` holds one line each; all of them are told at once."""

    exit_status = 2

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class UsageError(CancelWorkerError):
    """What was asked for on the command line cannot be done (contract 7)."""

    exit_status = 2


class TopologyError(CancelWorkerError):
    """An AMQP object is not there, or is there with another argument (contract 1).

    ``object`` reads like ``queue cancel.kill``. With ``argument`` None the object itself is missing; otherwise
    ``wanted`` and ``found`` are the two values, None for an argument that is absent.
    """

    exit_status = 2

    def __init__(
        self,
        object: str,
        argument: str | None = None,
        wanted: object = None,
        found: object = None,
        detail: str | None = None,
    ) -> None:
        self.object = object
        self.argument = argument
        self.wanted = wanted
        self.found = found
        if argument is None:
            message = f"{object} is missing"
        else:
            should = "not be set" if wanted is None else f"be {wanted}"
            message = f"{object}: {argument} should {should}, the broker has {'none' if found is None else found}"
        super().__init__(f"{message} ({detail})" if detail else message)


class BrokerError(CancelWorkerError):
    """RabbitMQ cannot be reached, did not answer in time, or closed the link."""


class BrokerRefusedError(BrokerError):
    """RabbitMQ answered, and refuses: credentials, virtual host or permission. Trying again at once is pointless."""


class VenueError(CancelWorkerError):
    """The venue cannot be reached, did not answer in time, or broke its protocol."""


class VenueRefusedError(VenueError):
    """The WebSocket upgrade was answered with HTTP ``status`` instead of 101; 401 and 403 speak of the key (protocol
    1.5).

    ``retry_after_s`` is the venue's Retry-After in seconds, None if it sent none.
    """

    def __init__(self, status: int, message: str, retry_after_s: float | None = None) -> None:
        self.status = status
        self.retry_after_s = retry_after_s
        super().__init__(message)


class OpsError(CancelWorkerError):
    """The operations endpoint cannot listen on ``ops.host:ops.port``."""
