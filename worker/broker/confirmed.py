"""Publishing by the tools: one message at a time, known to be stored or known not to be (faults A1, A3).

For short-lived aio-pika connections (``driver``); the channel must have been opened with ``publisher_confirms`` and
``on_return_raises``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractMessage
from aio_pika.exceptions import ChannelNotFoundEntity, DeliveryError, PublishError

from worker.broker.driver import limited
from worker.errors import BrokerError, TopologyError


class NotStoredError(BrokerError):
    """The broker said no: the message is not stored. Of any other BrokerError that can't be said."""


@asynccontextmanager
async def existing(object: str, within: float) -> AsyncIterator[None]:
    """As ``limited``; an object that is not there is a TopologyError."""
    async with limited(object, within):
        try:
            yield
        except ChannelNotFoundEntity as error:
            raise TopologyError(object, detail=str(error)) from None


async def confirming_channel(link: AbstractConnection, within: float) -> AbstractChannel:
    """A channel to publish on. Raises BrokerError."""
    async with limited("channel.open", within):
        return await link.channel(publisher_confirms=True, on_return_raises=True)


async def publish_confirmed(
    channel: AbstractChannel, exchange: str, routing_key: str, message: AbstractMessage, within: float
) -> None:
    """Publish ``mandatory`` and wait for the confirm.

    Raises TopologyError if the AMQP exchange or a binding is missing, NotStoredError if the broker refuses, and
    BrokerError if whether it is stored can't be told.
    """
    place = f"exchange {exchange}"
    async with existing(place, within):
        target = await channel.get_exchange(exchange, ensure=False)
        try:
            await target.publish(message, routing_key, mandatory=True)
        except PublishError:
            raise TopologyError(f"a binding of {place} with routing key {routing_key}") from None
        except DeliveryError:
            raise NotStoredError(f"{place}: the broker refused the message, a queue behind it takes no more") from None


def user_of(link: AbstractConnection) -> str | None:
    """Whom the broker knows us as, for ``user_id``; None by a client certificate alone: it knows better than we do."""
    assert isinstance(link, aio_pika.Connection)
    url = link.url
    return None if url.query.get("auth") == "external" else url.user
