"""The configuration as it may be shown to anyone."""

from __future__ import annotations

from typing import Any

import msgspec

from worker.config.secret import MASK, Secret, mask_url
from worker.config.structs import Config


def redacted(config: Config) -> dict[str, dict[str, Any]]:
    """``{section: {key: value}}`` of plain values: secrets and passwords inside URLs masked, None where unset."""
    return {
        section: {key: _shown(section, key, value) for key, value in msgspec.structs.asdict(struct).items()}
        for section, struct in msgspec.structs.asdict(config).items()
    }


def _shown(section: str, key: str, value: object) -> object:
    match value:
        case Secret():
            # Which broker is meant is worth seeing; user and host are no secrets.
            return mask_url(value.reveal()) if (section, key) == ("broker", "url") else MASK
        case str():
            return mask_url(value)
        case tuple():
            return list(value)
        case _:
            return value
