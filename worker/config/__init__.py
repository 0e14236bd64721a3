"""Files and environment in, one frozen ``Config`` out (contract 6)."""

from worker.config.addresses import (
    BrokerAddress,
    VenueAddress,
    is_loopback,
    parse_broker_url,
    parse_venue_url,
)
from worker.config.credentials import broker_urls, venue_credentials
from worker.config.load import PATHS_VARIABLE, config_paths, load, parse
from worker.config.secret import MASK, Secret, mask_url
from worker.config.shown import redacted
from worker.config.structs import (
    Authorization,
    Broker,
    Config,
    Kill,
    Log,
    Ops,
    Results,
    Shutdown,
    Venue,
)

__all__ = [
    "MASK",
    "PATHS_VARIABLE",
    "Authorization",
    "Broker",
    "BrokerAddress",
    "Config",
    "Kill",
    "Log",
    "Ops",
    "Results",
    "Secret",
    "Shutdown",
    "Venue",
    "VenueAddress",
    "broker_urls",
    "config_paths",
    "is_loopback",
    "load",
    "mask_url",
    "parse",
    "parse_broker_url",
    "parse_venue_url",
    "redacted",
    "venue_credentials",
]
