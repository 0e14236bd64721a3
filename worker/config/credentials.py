"""Secrets, read anew at every (re)connect, so that a rotated one is picked up (contract 6)."""

from __future__ import annotations

import re
from pathlib import Path

from worker.config.addresses import split_broker_urls
from worker.config.secret import Secret
from worker.config.structs import Config
from worker.errors import ConfigError

_LONGEST_BYTES = 65_536  # of a secret's file: anything longer is the wrong file
_VISIBLE = re.compile(r"\A[\x21-\x7e]+\Z")

LINE_RULE = "must be one line of printable ASCII characters without blanks"


def broker_urls(config: Config) -> list[str]:
    """The AMQP URLs to try in turn, of ``broker.url`` or the file ``broker.url_file``, read now.

    They hold passwords: not for logs (``mask_url``). Raises ConfigError that names the key.
    """
    source, text = _one_of("broker.url", config.broker.url, config.broker.url_file)
    try:
        return split_broker_urls(text)
    except ValueError as error:
        raise ConfigError(f"{source} {error}") from None


def venue_credentials(config: Config) -> tuple[Secret, Secret]:
    """``(api_key, api_secret)`` of the venue, their files read now. Raises ConfigError that names each key at fault."""
    venue = config.venue
    problems: list[str] = []
    found: list[Secret] = []
    for key, value, path in (
        ("venue.api_key", venue.api_key, venue.api_key_file),
        ("venue.api_secret", venue.api_secret, venue.api_secret_file),
    ):
        try:
            source, text = _one_of(key, value, path)
            if not _VISIBLE.match(text):
                raise ConfigError(f"{source} {LINE_RULE}")
            found.append(Secret(text))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return found[0], found[1]


def credential_problem(value: Secret | None) -> str | None:
    """What is wrong with ``venue.api_key`` or ``venue.api_secret`` where one is given; None if nothing is."""
    if value is None:
        return None
    if not value:
        return "must not be empty"
    return None if _VISIBLE.match(value.reveal()) else LINE_RULE


def _one_of(key: str, value: Secret | None, path: str | None) -> tuple[str, str]:
    """The key that gives the secret, and the secret."""
    if path is not None:
        if value is not None:
            raise ConfigError(f"{key} and {key}_file must not both be set")
        return f"{key}_file", _read(f"{key}_file", path)
    if value is None:
        raise ConfigError(f"{key} must be set, or {key}_file")
    if not value:
        raise ConfigError(f"{key} must not be empty")
    return key, value.reveal()


def _read(key: str, path: str) -> str:
    """The file's text without one final newline, which editors and ``echo`` add."""
    # A secret put here in place of a path must not be shown: only what looks like a path is.
    shown = f" {path}" if path.startswith(("/", "./", "../")) else ""
    try:
        with Path(path).open("rb") as file:
            data = file.read(_LONGEST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise ConfigError(f"{key}: cannot read{shown or ' the file'}: {reason or 'not a path'}") from None
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        raise ConfigError(f"{key}:{shown} {LINE_RULE}") from None
    if len(data) > _LONGEST_BYTES:
        raise ConfigError(f"{key}:{shown} must be at most {_LONGEST_BYTES} bytes")
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ConfigError(f"{key}:{shown} must not be empty")
    return text
