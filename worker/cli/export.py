"""The events of the audit stream as JSON Lines or CSV."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import msgspec

from worker.app import make_dial
from worker.broker.audit_stream import Start, Stored, opened
from worker.cli.selection import Selection
from worker.errors import CancelWorkerError
from worker.wire.seen import SeenEventError, read_event

if TYPE_CHECKING:
    from worker.config import Config

COLUMNS: Final = (
    "offset", "event_id", "command_id", "index", "outcome", "final", "sent", "order_live", "symbol", "cl_ord_id",
    "orig_cl_ord_id", "order_id", "order.status", "order.cum_qty", "order.leaves_qty", "order.avg_px", "order.as_of",
    "error.message", "supersedes", "late", "attempt", "lane", "worker", "session_id", "user_id", "app_id", "reason",
    "times.enqueued", "times.received", "times.sent", "times.reported", "times.published", "mass.matched",
    "mass.canceled", "mass.already_closed", "mass.rejected", "mass.unknown", "mass.unsent", "mass.remaining",
)  # fmt: skip
"""Columns of the CSV; a dot leads into an object of the event."""

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
Write = Callable[[Stored], None]


async def export_events(config: Config, selection: Selection, form: str, out: Path | None) -> None:
    """Write all selected events; how many, to standard error.

    Raises CancelWorkerError if the file can't be written, BrokerError if the stream can't be read to its end: then no
    file is left behind.
    """
    count = 0
    start: Start = selection.since_us if selection.since_us is not None else "first"
    with _opened(out) as file:
        write = _csv_writer(file) if form == "csv" else _json_writer(file)
        async with (
            opened(make_dial(config, "cancel-worker audit"), config.broker) as stream,
            aclosing(stream.to_end(start)) as batches,
        ):
            async for batch in batches:
                for message in batch:
                    try:
                        if not selection.wants(read_event(message.body)):
                            continue
                    except SeenEventError as error:
                        print(f"cancel-worker: left out, offset {message.offset}: {error}", file=sys.stderr)
                        continue
                    write(message)
                    count += 1
    print(f"cancel-worker: {count} events{f' in {out}' if out is not None else ''}", file=sys.stderr)


@contextmanager
def _opened(out: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that gets its name when it is whole."""
    if out is None:
        yield sys.stdout
        return
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        try:
            with part.open("x", encoding="utf-8", newline="") as file:
                yield file
            part.replace(out)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise CancelWorkerError(f"--out {out}: {error.strerror or 'cannot be written'}") from None


def _json_writer(file: TextIO) -> Write:
    def write(message: Stored) -> None:
        # A newline can only stand between tokens, in a report as the venue wrote it.
        file.write(message.body.decode("utf-8", "replace").replace("\n", " ") + "\n")

    return write


def _csv_writer(file: TextIO) -> Write:
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(COLUMNS)

    def write(message: Stored) -> None:
        event: Mapping[str, Any] = msgspec.json.decode(message.body)
        rows.writerow([str(message.offset), *(_cell(_at(event, column)) for column in COLUMNS[1:])])

    return write


def _at(event: Mapping[str, Any], column: str) -> object:
    value: object = event
    for name in column.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _cell(value: object) -> str:
    """Plain text; what a spreadsheet would take for a formula is set behind an apostrophe."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return " ".join(map(str, value))
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
