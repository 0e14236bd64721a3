"""The headers that log a session in: the upgrade itself is the log-in (protocol 1.2, 1.3)."""

from __future__ import annotations

from collections.abc import Callable

from worker.config.addresses import VenueAddress
from worker.config.secret import Secret
from worker.config.structs import Venue
from worker.errors import CancelWorkerError, VenueError
from worker.wire.signature import api_timestamp, upgrade_headers

Credentials = Callable[[], tuple[Secret, Secret]]
"""API key and API secret as they are now: asked for every attempt, so that a rotated one is picked up (contract 6)."""


class LogIn:
    """Signs each attempt anew; no two carry the same timestamp, however coarse it is."""

    def __init__(
        self, venue: Venue, address: VenueAddress, credentials: Credentials, utc_us: Callable[[], int]
    ) -> None:
        self._venue = venue
        self._address = address
        self._credentials = credentials
        self._utc_us = utc_us
        self._last: str | None = None

    def headers(self) -> dict[str, str] | None:
        """The headers of one attempt; None while the clock still shows the timestamp of the one before.

        Raises VenueError if the credentials cannot be read or used, without showing them.
        """
        try:
            key, secret = self._credentials()
        except OSError as error:
            raise VenueError(f"cannot read the API credentials: {error.strerror} ({error.filename})") from error
        except CancelWorkerError as error:
            raise VenueError(f"cannot read the API credentials: {error}") from error
        timestamp = api_timestamp(self._utc_us(), self._venue.timestamp_precision)
        if timestamp == self._last:
            return None
        try:
            headers = upgrade_headers(
                key.reveal(),
                secret.reveal(),
                timestamp,
                self._address.host,
                self._address.path,
                self._venue.signature_alphabet,
                self._venue.signature_padding,
            )
        except ValueError as error:
            raise VenueError(f"cannot log in: {error}") from error
        self._last = timestamp
        return headers
