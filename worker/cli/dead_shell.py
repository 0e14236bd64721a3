"""What ``dead`` does with the letters: show, requeue, purge, give them their ``unresolved``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import aio_pika
import msgspec
from msgspec import Struct

from worker.app import make_dial, worker_name
from worker.broker.audit_stream import find_final
from worker.broker.confirmed import NotStoredError
from worker.broker.content import APP_ID, CONTENT_TYPE
from worker.broker.dead_letters import opened
from worker.cli.console import Console, Tone, printable
from worker.wire.command import InvalidCommand, Lane
from worker.wire.dead_letter import DeadLetter
from worker.wire.event import Event, encode_event, routing_key
from worker.wire.timestamp import format_utc

if TYPE_CHECKING:
    from worker.config import Config

_HEAD: Final = ("id", "lane", "died", "at", "times", "user", "what")
_SHOWN_BODY: Final = 4096


class Choice(Struct, frozen=True):
    """Which letters are meant; ``ids`` None: all."""

    ids: frozenset[str] | None

    def means(self, letter: DeadLetter) -> bool:
        """Whether the letter is one of them."""
        return self.ids is None or letter.id in self.ids

    def missing(self, found: Iterable[str]) -> list[str]:
        """Ids that no letter has."""
        return sorted((self.ids or frozenset()) - set(found))


# -- looking


async def show_list(config: Config, limit: int, as_json: bool) -> int:
    """A row for each letter, or a JSON object a line."""
    rows: list[list[str]] = []
    tones: list[Tone] = []
    async with opened(make_dial(config, "cancel-worker dead"), config.broker) as letters:
        waiting = shown = 0
        async with aclosing(letters.take()) as all_held:
            async for held in all_held:
                waiting += 1
                if shown == limit:
                    continue
                shown += 1
                if as_json:
                    _write_json(_fields(held.letter, letters.lanes))
                else:
                    rows.append(_row(held.letter, letters.lanes))
                    tones.append("doubt" if held.letter.was_moved_by_broker else "")
    if as_json:
        return 0
    console = Console()
    if rows:
        console.table(_HEAD, rows, tones)
    more = f", the oldest {len(rows)} are shown" if waiting > len(rows) else ""
    console.line(f"{waiting} dead letters{more}" if waiting else "no dead letters", "" if waiting else "good")
    return 0


async def show_letter(config: Config, letter_id: str, as_json: bool, as_body: bool) -> int:
    """All of one letter, or of several under one id; 1 if there is none."""
    console, found = Console(), 0
    async with (
        opened(make_dial(config, "cancel-worker dead"), config.broker) as letters,
        aclosing(letters.take()) as all_held,
    ):
        async for held in all_held:
            letter = held.letter
            if letter.id != letter_id:
                continue
            found += 1
            if as_body:
                sys.stdout.buffer.write(letter.body)
                sys.stdout.flush()
            elif as_json:
                _write_json(_fields(letter, letters.lanes) | {"body": _body(letter)})
            else:
                _show(console, letter, letters.lanes)
    return _told([] if found else [letter_id])


def _what(letter: DeadLetter) -> str:
    if letter.is_mass:
        return "mass cancel"
    if isinstance(letter.command, InvalidCommand):
        return f"invalid: {letter.command.rejection.message}"
    return "1 cancel" if letter.cancels == 1 else f"{letter.cancels} cancels"


def _row(letter: DeadLetter, lanes: dict[str, Lane]) -> list[str]:
    death = letter.deaths[0] if letter.deaths else None
    at = format_utc(death.at_us)[:19] + "Z" if death is not None and death.at_us is not None else ""
    return [
        letter.id,
        letter.lane(lanes) or "?",
        death.reason if death is not None else "not known",
        at,
        str(death.count) if death is not None else "",
        letter.properties.user_id or "",
        _what(letter),
    ]


def _fields(letter: DeadLetter, lanes: dict[str, Lane]) -> dict[str, Any]:
    properties = msgspec.structs.asdict(letter.properties)
    deaths = [
        {
            "queue": death.queue,
            "reason": death.reason,
            "count": death.count,
            "at": None if death.at_us is None else format_utc(death.at_us),
        }
        for death in letter.deaths
    ]
    return {
        "id": letter.id,
        "command_id": letter.command_id,
        "lane": letter.lane(lanes),
        "what": _what(letter),
        "cancels": letter.cancels,
        "mass": letter.is_mass,
        "deaths": deaths,
        "not_requeued_because": letter.why_not_requeued(),
        "properties": _plain(properties),
    }


def _plain(value: Any) -> Any:
    """Something that JSON can hold, whatever a header held."""
    match value:
        case dict():
            return {printable(str(key)): _plain(each) for key, each in value.items()}
        case list():
            return [_plain(each) for each in value]
        case bytes():
            return printable(value.decode("utf-8", "replace"))
        case str():
            return value.encode("utf-8", "replace").decode()
        case datetime():
            return value.isoformat()
    return value


def _body(letter: DeadLetter) -> str:
    """The body as text: MessagePack as the JSON it stands for, where it can be read."""
    if "msgpack" in (letter.properties.content_type or ""):
        try:
            return msgspec.json.encode(msgspec.msgpack.decode(letter.body)).decode()
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError, ValueError):
            pass
    return letter.body.decode("utf-8", "replace")


def _show(console: Console, letter: DeadLetter, lanes: dict[str, Lane]) -> None:
    fields = _fields(letter, lanes)
    properties = fields.pop("properties")
    deaths = fields.pop("deaths")
    headers = properties.pop("headers")
    for name, value in (fields | properties).items():
        if value is not None:
            console.line(f"{name:<22} {value}")
    for death in deaths:
        console.line(
            f"{'death':<22} {death['reason']} in {death['queue']}, {death['count']} times, {death['at'] or ''}"
        )
    for name, value in headers.items():
        if name != "x-death":
            console.line(f"{'header ' + name:<22} {value}")
    text = _body(letter)
    more = f" ... {len(letter.body)} bytes in all, --body prints them" if len(text) > _SHOWN_BODY else ""
    console.line(f"{'body':<22} {text[:_SHOWN_BODY]}{more}")
    console.line()


# -- dealing with them


async def requeue_letters(config: Config, choice: Choice, fallback: Lane | None) -> int:
    """Requeue what is meant and may be; 1 if something that was asked for by its id, or that may be, was not."""
    console = Console()
    found: set[str] = set()
    done = kept = failed = 0
    async with (
        opened(make_dial(config, "cancel-worker dead"), config.broker) as letters,
        aclosing(letters.take()) as all_held,
    ):
        async for held in all_held:
            letter = held.letter
            if not choice.means(letter):
                continue
            found.add(letter.id)
            lane = letter.lane(letters.lanes) or fallback
            why_not = letter.why_not_requeued()
            if why_not is not None or lane is None:
                kept += 1
                failed += choice.ids is not None
                why_not = why_not or "it does not say which lane it came from: give --lane"
                console.line(f"{letter.id}  not requeued: {why_not}", "doubt")
                continue
            try:
                await letters.requeue(held, lane)
            except NotStoredError as error:
                kept, failed = kept + 1, failed + 1
                console.line(f"{letter.id}  not requeued: {error}", "bad")
            else:
                done += 1
                console.line(f"{letter.id}  requeued to the {lane} lane", "good")
    console.line(f"{done} requeued, {kept} kept")
    return max(_told(choice.missing(found)), 1 if failed else 0)


async def purge_letters(config: Config, choice: Choice) -> int:
    """Delete what is meant; 1 if one of the ids has no letter."""
    console = Console()
    found: set[str] = set()
    done = 0
    async with (
        opened(make_dial(config, "cancel-worker dead"), config.broker) as letters,
        aclosing(letters.take()) as all_held,
    ):
        async for held in all_held:
            if choice.means(held.letter):
                found.add(held.letter.id)
                await letters.drop(held)
                done += 1
                console.line(f"{held.letter.id}  deleted")
    console.line(f"{done} deleted")
    return _told(choice.missing(found))


async def give_unresolved(config: Config, choice: Choice, within: float) -> int:
    """Publish ``unresolved`` for each cancel without a final (contract 4.6); 1 if one of the ids has no letter.

    Raises BrokerError if the audit stream could not be searched to its end: then nothing is published.
    """
    dial, console = make_dial(config, "cancel-worker dead"), Console()
    async with opened(dial, config.broker) as letters:
        async with aclosing(letters.take()) as all_held:
            meant = [held.letter async for held in all_held if choice.means(held.letter)]
        await letters.put_back()  # the search may take a while, and nobody else could see them
        wanted = {event_id for letter in meant for _, ids in letter.ends() for event_id in ids}
        there = set(await find_final(dial, config.broker, wanted, _since_us(meant), within))
        worker, given = worker_name(), 0
        for letter in meant:
            missing = [index for index, ids in letter.ends() if not ids & there]
            for index in missing:
                event = letter.unresolved(index, letter.lane(letters.lanes), worker, time.time_ns() // 1000)
                await letters.publish_event(_message(letter, event), routing_key("unresolved", True, event.symbol))
                there.add(event.event_id)
            given += len(missing)
            if missing:
                console.line(f"{letter.id}  {len(missing)} unresolved", "doubt")
    console.line(f"{len(meant)} dead letters, {given} unresolved published")
    return _told(choice.missing(letter.id for letter in meant))


def _since_us(letters: list[DeadLetter]) -> int | None:
    """No final of them can be older, UTC microseconds; None: that is not known."""
    times = [letter.command.context.enqueued_us for letter in letters]
    known = [at_us for at_us in times if at_us is not None]
    return min(known) if known and len(known) == len(times) else None


def _message(letter: DeadLetter, event: Event) -> aio_pika.Message:
    """The event as a worker publishes it (contract section 3)."""
    context = letter.command.context
    company = {name: getattr(context, name) for name in ("command_id", "traceparent", "tracestate", "reason")}
    headers: dict[str, Any] = {"final": True, **company, "deadline": context.deadline_text}
    return aio_pika.Message(
        encode_event(event),
        content_type=CONTENT_TYPE,
        headers={name: value for name, value in headers.items() if value is not None},
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=event.event_id,
        correlation_id=context.correlation_id,
        timestamp=int(time.time()),
        type=event.outcome,
        app_id=APP_ID,
    )


def _told(missing: list[str]) -> int:
    """Say which ids have no letter; the exit status."""
    for letter_id in missing:
        print(f"cancel-worker: there is no dead letter {printable(letter_id)}", file=sys.stderr)
    return 1 if missing else 0


def _write_json(fields: dict[str, Any]) -> None:
    sys.stdout.write(msgspec.json.encode(fields).decode() + "\n")
    sys.stdout.flush()
