"""Files and environment in, one frozen ``Config`` out (contract 6)."""

from worker.config.secret import MASK, Secret, mask_url
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
    "Authorization",
    "Broker",
    "Config",
    "Kill",
    "Log",
    "Ops",
    "Results",
    "Secret",
    "Shutdown",
    "Venue",
    "mask_url",
]
