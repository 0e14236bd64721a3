"""Logging: one masked line per event, which never raises and never waits (contract 4.8, faults M4 and W13)."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import re
import select
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from worker import log
from worker.config import Secret, Venue

TEXT = "hunter2/hunter2+%\"'\\é"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Logging is global to the process: put back what was there."""
    root = logging.getLogger()
    names = ("aio_pika", "aiohttp", "aiormq", "asyncio", "websockets")
    handlers, level, raising = list(root.handlers), root.level, logging.raiseExceptions
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raising
    for name, number in levels.items():
        logging.getLogger(name).setLevel(number)


class Output(io.BytesIO):
    """A stream in memory; it has no descriptor, so each line is written at once."""

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def output() -> Output:
    return Output()


def test_an_event_is_one_line_of_json(output: Output) -> None:
    log.configure("info", "json", output)
    log.get_logger(worker="w").info("session_ready", session=3, slot=0)
    (line,) = output.lines
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("timestamp"))
    assert list(line.items()) == [
        ("level", "info"), ("event", "session_ready"), ("worker", "w"), ("session", 3), ("slot", 0),
    ]  # fmt: skip


def test_levels_below_the_one_configured_are_silent(output: Output) -> None:
    log.configure("warning", "json", output)
    logger = log.get_logger()
    logger.debug("a")
    logger.info("b")
    logger.warning("c")
    logger.error("d")
    assert [(line["level"], line["event"]) for line in output.lines] == [("warning", "c"), ("error", "d")]


def test_for_a_terminal_an_event_is_one_line_too(output: Output) -> None:
    log.configure("info", "console", output)
    log.get_logger().info("cancel_final", outcome="canceled", text="two\nlines", api_secret="hunter2")
    text = output.getvalue().decode()
    assert text.count("\n") == 1
    assert "cancel_final" in text
    assert "canceled" in text
    assert "hunter2" not in text


@pytest.mark.parametrize("format", ["json", "console"])
def test_known_secrets_are_masked_wherever_they_stand(output: Output, format: log.Format) -> None:
    log.configure("info", format, output, hide=[Secret(TEXT)])
    logger = log.get_logger()
    event = f"plain {TEXT}"
    logger.info(event, field=TEXT, inside={"a": [f"x{TEXT}x"]}, raw=TEXT.encode(), error=ValueError(TEXT))
    logger.info("percent", url="http://x/?k=hunter2%2Fhunter2%2B%25%22%27%5C%C3%A9")
    logging.getLogger("websockets").error("header %s", TEXT)
    try:
        raise ValueError(TEXT)
    except ValueError:
        logger.exception("failed")
    assert b"hunter2" not in output.getvalue()
    assert output.getvalue().count(b"***") >= 7


def test_a_secret_that_is_learnt_later_is_masked_from_then_on(output: Output) -> None:
    configured = log.configure("info", "json", output)
    configured.hide(Secret("first-secret"))
    configured.hide("second-secret")
    log.get_logger().info("x", a="first-secret", b="second-secret")
    assert (output.lines[0]["a"], output.lines[0]["b"]) == ("***", "***")


@pytest.mark.parametrize("name", ["api_secret", "password", "ApiSign", "API-KEY", "Authorization", "token"])
def test_a_field_that_tells_a_secret_is_masked_at_any_depth(output: Output, name: str) -> None:
    log.configure("info", "json", output)
    log.get_logger().info("x", headers={"h": [{name: "hunter2"}]})
    assert b"hunter2" not in output.getvalue()


def test_fields_of_the_call_that_tell_a_secret_are_masked(output: Output) -> None:
    log.configure("info", "json", output)
    log.get_logger(token="hunter2").info("x", api_secret="hunter2", password=2, venue=Venue(api_key=Secret("hunter2")))
    (line,) = output.lines
    assert (line["token"], line["api_secret"], line["password"]) == ("***", "***", "***")
    assert line["venue"]["api_key"] == "***"


def test_the_password_of_a_url_is_masked(output: Output) -> None:
    log.configure("info", "json", output)
    log.get_logger().info("x", url="amqp://me:hunter2@rabbit/", nested=["amqp://me:hunter2@a/,amqp://b/"])
    assert b"hunter2" not in output.getvalue()
    assert output.lines[0]["url"] == "amqp://me:***@rabbit/"


class Odd:
    """Fails to show itself."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.mark.parametrize(
    "value",
    [Odd(), {"a": Odd()}, "\ud800", {"\ud800": 1}, 2**70, {2**70: b"\xff"}, float("nan"), object(), {1, "a"}, Odd,
     ValueError("x"), structlog, msgspec.Raw(b"{}"), memoryview(b"x")],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
@pytest.mark.parametrize("format", ["json", "console"])
def test_no_value_makes_a_log_call_raise(output: Output, value: object, format: log.Format) -> None:
    log.configure("info", format, output)
    log.get_logger().info("x", value=value)
    assert output.getvalue().count(b"\n") == 1


def test_a_value_that_holds_itself_loses_its_line_only(output: Output) -> None:
    log.configure("info", "json", output)
    loop: list[object] = []
    loop.append(loop)
    log.get_logger().info("x", value=loop)
    log.get_logger().info("y")
    assert [line["event"] for line in output.lines] == ["log_line_lost", "y"]


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.integers() | st.text() | st.binary(), st.lists)))
def test_any_fields_give_one_line_of_json(fields: dict[str, object]) -> None:
    output = Output()
    log.configure("info", "json", output)
    log.get_logger(**fields).info("x")
    assert len(output.lines) == 1


def test_an_exception_is_one_field_with_its_place_and_no_traceback(output: Output) -> None:
    log.configure("info", "json", output)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.get_logger().exception("failed")
    (line,) = output.lines
    assert re.fullmatch(
        r"ValueError: two lines \(test_log\.py:\d+ test_an_exception_is_one_field.*\)", line["exception"]
    )
    assert "Traceback" not in output.getvalue().decode()


def test_libraries_speak_from_warning_on_whatever_the_level(output: Output) -> None:
    log.configure("debug", "json", output)
    for name in ("websockets.client", "aio_pika.connection", "aiormq", "aiohttp.server", "asyncio", "other"):
        logger = logging.getLogger(name)
        logger.debug("ApiSign: x")
        logger.info("chatter")
        logger.warning("trouble with %s", "amqp://me:hunter2@rabbit/")
    assert {(line["level"], line["event"], line["message"]) for line in output.lines} == {
        ("warning", "library_message", "trouble with amqp://me:***@rabbit/")
    }
    assert len(output.lines) == 6


def test_a_library_s_bad_format_does_not_raise(output: Output) -> None:
    log.configure("info", "json", output)
    logging.getLogger("aiormq").warning("%d", "x")
    assert output.lines[0]["message"] == "%d"


def test_configuring_again_does_not_double_the_lines(output: Output) -> None:
    log.configure("info", "json", Output())
    log.configure("info", "json", output)
    logging.getLogger("aiormq").warning("x")
    log.get_logger().info("y")
    assert len(output.lines) == 2


def test_a_full_disk_is_counted_and_does_not_raise() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    configured = log.configure("info", "json", descriptor)
    logger = log.get_logger()
    for _ in range(3):
        logger.info("x")
    assert configured.dropped == 3
    os.close(descriptor)
    logger.info("x")  # a descriptor that is closed is no worse
    assert configured.dropped == 4


def test_a_stream_that_fails_is_counted_and_does_not_raise() -> None:
    class Broken(io.BytesIO):
        def write(self, data: object, /) -> int:
            raise OSError(28, "No space left on device")

    configured = log.configure("info", "json", Broken())
    log.get_logger().info("x")
    assert configured.dropped == 1


def test_a_reader_that_is_gone_is_counted_and_does_not_raise() -> None:
    read, write = os.pipe()
    os.close(read)
    configured = log.configure("info", "json", write)
    log.get_logger().info("x")
    assert configured.dropped == 1
    os.close(write)


def test_a_reader_that_stalls_neither_blocks_nor_loses_lines_until_the_buffer_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.log.sink._BUFFER_BYTES", 200_000)
    read, write = os.pipe()
    configured = log.configure("info", "json", write)
    logger = log.get_logger()
    for number in range(3000):
        logger.info("x", number=number, filler="f" * 100)
    assert 0 < configured.dropped < 3000
    text = b""
    os.set_blocking(read, False)
    while not configured.sink.flush() or select_readable(read):
        text += os.read(read, 65536)
    numbers = [msgspec.json.decode(line)["number"] for line in text.splitlines()]
    assert len(numbers) == 3000 - configured.dropped
    assert numbers == list(range(len(numbers)))
    os.close(read)
    os.close(write)


def select_readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])


def test_a_half_line_of_a_failed_write_does_not_spoil_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    configured = log.configure("info", "json", descriptor)
    logger = log.get_logger()
    real = os.write
    answers = iter([10, 0])

    def half(fd: int, data: bytes) -> int:
        count = next(answers, None)
        if count is None:
            return real(fd, data)
        if count == 0:
            raise OSError(28, "No space left on device")
        return real(fd, data[:count])

    monkeypatch.setattr(os, "write", half)
    logger.info("lost")
    logger.info("kept")
    monkeypatch.undo()
    os.close(descriptor)
    assert configured.dropped == 1
    assert msgspec.json.decode(path.read_bytes().splitlines()[-1])["event"] == "kept"


async def test_with_a_loop_the_lines_of_a_turn_are_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    configured = log.configure("info", "json", descriptor)
    configured.sink.attach(asyncio.get_running_loop())
    writes: list[int] = []
    real = os.write

    def counted(fd: int, data: bytes) -> int:
        writes.append(fd)
        return real(fd, data)

    monkeypatch.setattr(os, "write", counted)
    logger = log.get_logger()
    for _ in range(100):
        logger.info("x")
    assert not writes
    await asyncio.sleep(0.01)
    assert writes == [descriptor]
    logger.info("y")
    configured.sink.detach()
    assert len(path.read_bytes().splitlines()) == 101
    logger.info("z")
    assert len(path.read_bytes().splitlines()) == 102
    os.close(descriptor)


async def test_with_a_loop_a_stalled_pipe_is_tried_again() -> None:
    read, write = os.pipe()
    configured = log.configure("info", "json", write)
    configured.sink.attach(asyncio.get_running_loop())
    logger = log.get_logger()
    for _ in range(1000):
        logger.info("x", filler="f" * 200)
    await asyncio.sleep(0)
    got = 0
    async with asyncio.timeout(10):
        while got < 1000:
            await asyncio.sleep(0.01)
            if select_readable(read):
                got += os.read(read, 1_000_000).count(b"\n")
    assert configured.dropped == 0
    configured.sink.detach()
    os.close(read)
    os.close(write)


def test_a_loop_that_is_closed_no_longer_holds_lines_back(tmp_path: Path) -> None:
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    configured = log.configure("info", "json", descriptor)
    loop = asyncio.new_event_loop()
    configured.sink.attach(loop)
    loop.close()
    log.get_logger().info("x")
    assert path.read_bytes().count(b"\n") == 1
    os.close(descriptor)


async def test_another_thread_may_log_while_a_loop_is_attached(tmp_path: Path) -> None:
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    configured = log.configure("info", "json", descriptor)
    configured.sink.attach(asyncio.get_running_loop())

    def speak() -> None:
        logger = log.get_logger()
        for _ in range(500):
            logger.info("x")

    threads = [threading.Thread(target=speak) for _ in range(4)]
    for thread in threads:
        thread.start()
    speak()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    configured.sink.detach()
    lines = path.read_bytes().splitlines()
    assert len(lines) == 2500
    for line in lines:
        msgspec.json.decode(line)
    os.close(descriptor)
