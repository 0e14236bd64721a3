"""Short-lived aio-pika connections for topology, checks and tools: limited in time, errors told as ours.

The worker's own traffic does not pass here, see ``link``. Everything called on such a connection belongs inside
``limited``: aio-pika's own time limits do not cover all it waits for, and some of its failures look like a
cancellation (faults A3, A4).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import quote

import aio_pika
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError
from aiormq.exceptions import ChannelAccessRefused, InvalidFrameError, ProbableAuthenticationError

from worker.broker.dial import Dial, Endpoint
from worker.config.secret import mask_url
from worker.errors import BrokerError, BrokerRefusedError

CLOSE_WITHIN_S: Final = 2.0


@asynccontextmanager
async def limited(what: str, within: float) -> AsyncIterator[None]:
    """Give what is awaited inside ``within`` seconds; ``what`` begins the error's text.

    Raises BrokerRefusedError for a permission or log-in, BrokerError for everything else of the driver's or the
    system's. Other exceptions pass.
    """
    try:
        async with asyncio.timeout(within):
            yield
    except TimeoutError:
        raise BrokerError(f"{what}: no answer within {within:g} s") from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise BrokerError(f"{what}: the connection was lost") from None
    except (ChannelAccessRefused, ProbableAuthenticationError) as error:
        raise BrokerRefusedError(f"{what}: {_text(error)}") from error
    except (AMQPError, ChannelInvalidStateError, OSError) as error:
        raise BrokerError(f"{what}: {_text(error)}") from error


@asynccontextmanager
async def connection(dial: Dial, role: str) -> AsyncIterator[AbstractConnection]:
    """A plain (never self-healing) aio-pika connection to the first URL that answers, closed at the end.

    Raises BrokerError with the reason of each URL, BrokerRefusedError if all that answered refuse us.
    """
    connected = await _connect(dial, role)
    try:
        yield connected
    finally:
        try:
            async with limited("close", CLOSE_WITHIN_S):
                await connected.close()
        except BrokerError:
            pass  # a frozen broker (faults A18): the socket is gone, which is all that matters


async def _connect(dial: Dial, role: str) -> AbstractConnection:
    errors: list[BrokerError] = []
    for endpoint in dial.endpoints():
        try:
            async with limited(str(endpoint), dial.connect_timeout_s):
                try:
                    return await aio_pika.connect(
                        driver_url(endpoint, dial.heartbeat_s, dial.connection_name(role)),
                        ssl_context=dial.ssl_context() if endpoint.address.tls else None,
                    )
                except InvalidFrameError as error:
                    # The driver expects open-ok and can't read the close that says why.
                    vhost = endpoint.address.vhost
                    text = f"{endpoint}: the broker refuses us virtual host {vhost}, or has none of that name"
                    raise BrokerRefusedError(text) from error
        except BrokerError as error:
            errors.append(error)
    refused = all(isinstance(error, BrokerRefusedError) for error in errors)
    raise (BrokerRefusedError if refused else BrokerError)("; ".join(map(str, errors))) from errors[-1]


def driver_url(endpoint: Endpoint, heartbeat_s: int, name: str) -> str:
    """The endpoint as aio-pika wants it. Holds the password: not for logs."""
    address = endpoint.address
    scheme = "amqps" if address.tls else "amqp"
    host = f"[{address.host}]" if ":" in address.host else address.host
    user, password, vhost = (quote(text, safe="") for text in (address.user, address.password.reveal(), address.vhost))
    query = f"heartbeat={heartbeat_s}&name={quote(name, safe='')}"
    if endpoint.by_certificate:
        return f"{scheme}://{host}:{address.port}/{vhost}?{query}&auth=external"
    return f"{scheme}://{user}:{password}@{host}:{address.port}/{vhost}?{query}"


def _text(error: Exception) -> str:
    return mask_url(str(error)) or type(error).__name__
