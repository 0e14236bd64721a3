"""Each method that the worker sends, read by pamqp; each that it reads, written by pamqp, and noise."""

from __future__ import annotations

from collections.abc import Callable

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import base, commands

from worker.broker import methods
from worker.broker.fields import AmqpSyntaxError


def arguments_of(frame: base.Frame) -> bytes:
    return bytes(pamqp.frame.marshal(frame, 0))[11:-1]


@pytest.mark.parametrize(
    ("data", "channel", "frame"),
    [
        (methods.encode_tune_ok(16, 131_072, 5), 0, commands.Connection.TuneOk(16, 131_072, 5)),
        (methods.encode_open("/"), 0, commands.Connection.Open("/")),
        (methods.encode_close(200, "bye"), 0, commands.Connection.Close(200, "bye", 0, 0)),
        (methods.encode_method(0, methods.CONNECTION_CLOSE_OK), 0, commands.Connection.CloseOk()),
        (methods.encode_method(3, methods.CHANNEL_CLOSE_OK), 3, commands.Channel.CloseOk()),
        (methods.encode_method(3, methods.CHANNEL_FLOW_OK, b"\x01"), 3, commands.Channel.FlowOk(True)),
        (methods.encode_confirm_select(1), 1, commands.Confirm.Select()),
        (methods.encode_qos(1, 500), 1, commands.Basic.Qos(0, 500, False)),
        (methods.encode_consume(1, "cancel.kill", "kill-7"), 1, commands.Basic.Consume(0, "cancel.kill", "kill-7")),
        (methods.encode_cancel(1, "kill-7"), 1, commands.Basic.Cancel("kill-7")),
        (methods.encode_ack(1, 2**40), 1, commands.Basic.Ack(2**40, False)),
        (methods.encode_nack(1, 9, requeue=True), 1, commands.Basic.Nack(9, False, True)),
        (methods.encode_nack(1, 9, requeue=False), 1, commands.Basic.Nack(9, False, False)),
    ],
)
def test_what_is_sent_is_what_pamqp_would_send(data: bytes, channel: int, frame: base.Frame) -> None:
    assert data == bytes(pamqp.frame.marshal(frame, channel))


def test_start_ok_holds_mechanism_response_and_properties() -> None:
    data = methods.encode_start_ok({"product": "x", "capabilities": {"basic.nack": True}}, "PLAIN", b"\0u\0p")
    _, _, frame = pamqp.frame.unmarshal(data)
    assert isinstance(frame, commands.Connection.StartOk)
    assert (frame.mechanism, frame.response, frame.locale) == ("PLAIN", "\0u\0p", "en_US")
    assert frame.client_properties == {"product": "x", "capabilities": {"basic.nack": True}}


def test_what_the_broker_says_is_read() -> None:
    start = commands.Connection.Start(0, 9, {"product": "RabbitMQ"}, "PLAIN AMQPLAIN", "en_US")
    assert methods.read_start(arguments_of(start)) == methods.Start({"product": "RabbitMQ"}, ("PLAIN", "AMQPLAIN"))
    tune = arguments_of(commands.Connection.Tune(2047, 131_072, 60))
    assert methods.read_tune(tune) == methods.Tune(2047, 131_072, 60)
    close = arguments_of(commands.Channel.Close(404, "NOT_FOUND", 60, 20))
    assert methods.read_close(close) == methods.Close(404, "NOT_FOUND", methods.BASIC_CONSUME)


def test_another_version_is_told() -> None:
    with pytest.raises(AmqpSyntaxError, match="AMQP 1-0"):
        methods.read_start(arguments_of(commands.Connection.Start(1, 0)))


@pytest.mark.parametrize("read", [methods.read_start, methods.read_tune, methods.read_close])
@given(noise=st.binary(max_size=100))
def test_noise_raises_nothing_but_the_codec_s_own_error(read: Callable[[bytes], object], noise: bytes) -> None:
    for data in (noise, b"\x00\x09" + noise):
        try:
            read(data)
        except AmqpSyntaxError:
            pass
