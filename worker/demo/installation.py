"""Where a RabbitMQ server lies on this machine. Nothing is fetched here: ``make setup`` does that."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from worker.errors import CancelWorkerError

PREFIX_VARIABLE = "CANCEL_WORKER_RABBITMQ"
"""Environment variable: a folder that holds ``usr/lib/rabbitmq``, as unpacked Debian packages do."""

_PROJECT = Path(__file__).resolve().parents[2]
_SCRIPTS = Path("usr/lib/rabbitmq/bin")


class NodeError(CancelWorkerError):
    """A private RabbitMQ node did not do what was asked of it."""


class NodeMissingError(NodeError):
    """There is no RabbitMQ on this machine that a private node could be made of."""

    exit_status = 2


class Installation(NamedTuple):
    """A tree of Debian's rabbitmq-server, ``prefix`` being ``/`` for an installed package."""

    prefix: Path

    @property
    def scripts(self) -> Path:
        """The scripts as RabbitMQ ships them: those in /usr/sbin switch to the user rabbitmq and write to /var/log."""
        return self.prefix / _SCRIPTS

    @property
    def search_path(self) -> str:
        """PATH with this tree's Erlang before any other."""
        usual = os.environ.get("PATH", os.defpath)
        return f"{self.prefix / 'usr/lib/erlang/bin'}:{self.prefix / 'usr/bin'}:{usual}"


def find_rabbitmq(environment: Mapping[str, str] = os.environ) -> Installation:
    """The first of: what ``CANCEL_WORKER_RABBITMQ`` names, ``.cache/rabbitmq`` of a checkout, the installed package.

    Raises NodeMissingError if none is there, or if the variable names a folder without RabbitMQ.
    """
    named = environment.get(PREFIX_VARIABLE)
    if named:
        installation = Installation(Path(named).resolve())
        if not (installation.scripts / "rabbitmq-server").exists():
            raise NodeMissingError(f"{PREFIX_VARIABLE} is {named}, but there is no {_SCRIPTS}/rabbitmq-server in it")
        return installation
    for prefix in (_PROJECT / ".cache" / "rabbitmq", Path("/")):
        if (prefix / _SCRIPTS / "rabbitmq-server").exists():
            return Installation(prefix)
    raise NodeMissingError(
        f"no RabbitMQ on this machine: run `make setup`, install rabbitmq-server, or set {PREFIX_VARIABLE}"
    )
