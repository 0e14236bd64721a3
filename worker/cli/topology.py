"""``cancel-worker topology``: the AMQP objects as a table or a definitions file, or declared."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from worker.cli.console import Console
from worker.cli.loading import load_config

if TYPE_CHECKING:
    from worker.broker.topology import Topology
    from worker.config import Config


@click.command(
    "topology",
    epilog="""\b
Examples:
  cancel-worker topology
  cancel-worker topology --format definitions --vhost trading > cancel-worker.json
  rabbitmqctl import_definitions cancel-worker.json
  CANCEL_WORKER__BROKER__URL_FILE=/run/secrets/admin-url cancel-worker topology --declare

\b
Exit status:
  0  printed; with --declare: all of it is there
  1  the broker cannot be reached, or refuses
  2  the configuration is wrong, or an object is there with other arguments
""",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "definitions"]),
    default="table",
    show_default=True,
    help="A table to read, or a definitions file for rabbitmqctl import_definitions.",
)
@click.option("--vhost", metavar="NAME", help="Virtual host of the definitions. Default: the one of broker.url.")
@click.option("--declare", is_flag=True, help="Declare and bind all of it on the broker; may be repeated.")
@click.pass_context
def command(context: click.Context, form: str, vhost: str | None, declare: bool) -> int:
    """Show every AMQP object that the worker needs, under the configured names and arguments.

    Without --declare no broker is asked. With it everything is declared and bound as broker.declare = true would, for
    those who keep broker.declare = false; what is there already with the same arguments is left alone, and what is
    there with others is named with both values, and not changed.
    """
    from worker.broker.topology import topology_of

    config = load_config(context)
    topology = topology_of(config.broker)
    if declare:
        import asyncio

        asyncio.run(_declare(config))
    if form == "definitions":
        text = json.dumps(definitions(topology, vhost if vhost is not None else _vhost(config)), indent=2)
        sys.stdout.write(text + "\n")
    else:
        _show(topology)
        if declare:
            Console().line("declared: all of it is on the broker", "good")
    return 0


async def _declare(config: Config) -> None:
    from worker.app import make_dial
    from worker.broker.topology import declare

    await declare(make_dial(config, "cancel-worker topology"), config.broker)


def definitions(topology: Topology, vhost: str) -> dict[str, object]:
    """A RabbitMQ definitions file of these objects and their virtual host; users and permissions are not in it."""
    common: dict[str, object] = {"vhost": vhost, "durable": True, "auto_delete": False}
    return {
        "vhosts": [{"name": vhost}],
        "exchanges": [
            {"name": exchange.name, **common, "type": exchange.type, "internal": False, "arguments": {}}
            for exchange in topology.exchanges
        ],
        "queues": [{"name": queue.name, **common, "arguments": dict(queue.arguments)} for queue in topology.queues],
        "bindings": [
            {
                "source": binding.exchange,
                "vhost": vhost,
                "destination": binding.queue,
                "destination_type": "queue",
                "routing_key": binding.routing_key,
                "arguments": {},
            }
            for binding in topology.bindings
        ],
    }


def _vhost(config: Config) -> str:
    from worker.config import broker_urls, parse_broker_url

    return parse_broker_url(broker_urls(config)[0]).vhost


def _show(topology: Topology) -> None:
    rows = [["exchange", exchange.name, exchange.type] for exchange in topology.exchanges]
    for queue in topology.queues:
        rows += _of_queue(queue.name, dict(queue.arguments))
    for binding in topology.bindings:
        key = f"with {binding.routing_key}" if binding.routing_key else "with every key"
        rows.append(["binding", f"{binding.exchange} -> {binding.queue}", key])
    Console().table(["kind", "name", "what"], rows)


def _of_queue(name: str, arguments: dict[str, str | int]) -> list[list[str]]:
    """The queue with its kind, and a row for each further argument."""
    kind = str(arguments.pop("x-queue-type"))
    return [["queue", name, kind], *(["", "", f"{key} = {value}"] for key, value in arguments.items())]
