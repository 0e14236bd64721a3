"""URLs taken apart: what is signed, what is dialled, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.config import BrokerAddress, Secret, VenueAddress, is_loopback, parse_broker_url, parse_venue_url


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("wss://wss.prime.kraken.com/ws/v1", (True, "wss.prime.kraken.com", 443, "/ws/v1")),
        ("wss://WSS.Prime.Kraken.com:443/ws/v1", (True, "wss.prime.kraken.com", 443, "/ws/v1")),
        ("wss://venue.example:8443/a/b", (True, "venue.example", 8443, "/a/b")),
        ("ws://localhost:9000/ws/v1", (False, "localhost", 9000, "/ws/v1")),
        ("ws://127.8.9.1/ws/v1", (False, "127.8.9.1", 80, "/ws/v1")),
        ("ws://[::1]:9000/ws/v1", (False, "::1", 9000, "/ws/v1")),
        ("wss://10.0.0.1/ws/v1", (True, "10.0.0.1", 443, "/ws/v1")),
    ],
)
def test_a_venue_url_has_a_bare_host_and_a_path(url: str, address: tuple[bool, str, int, str]) -> None:
    assert parse_venue_url(url) == VenueAddress(*address)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "wss",
        "wss:/venue.example/ws",
        "wss:venue.example/ws",
        " wss://venue.example/ws",
        "wss://venue.example/ws\n",
        "wss://venue.ex\tample/ws",
        "wss://venue.éxample/ws",
        "wss://venue..example/ws",
        "wss://-venue/ws",
        "wss://venue.example:/ws",
        "wss://venue.example:0/ws",
        "wss://venue.example:x/ws",
        "wss://venue.example:-1/ws",
        "wss://[::1/ws",
        "wss://[::1%25eth0]/ws",
        "wss://[v1.x]/ws",
        "wss://@venue.example/ws",
        "wss://venue.example/ws#x",
        "wss://venue.example?/ws",
        "wss://venue.example/",
        "ws://localhost.evil.example/ws",
        "ws://127.0.0.1.evil.example/ws",
        "ws://0.0.0.0/ws",
        "ws://[::]/ws",
        "ws://2130706433/ws",
        "ws://evil.example\\@localhost/ws",
        "ws://localhost\\@evil.example/ws",
    ],
)
def test_a_url_that_could_be_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"^must "):
        parse_venue_url(url)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("amqp://rabbit", (False, "rabbit", 5672, "guest", "guest", "/")),
        ("amqps://rabbit/", (True, "rabbit", 5671, "guest", "guest", "/")),
        ("amqp://me:p%2Fw%40@rabbit:1/%2F", (False, "rabbit", 1, "me", "p/w@", "/")),
        ("amqp://me:@rabbit/a%2Fb", (False, "rabbit", 5672, "me", "", "a/b")),
        ("amqp://d%40sk:x@[::1]:5673/v", (False, "::1", 5673, "d@sk", "x", "v")),
    ],
)
def test_a_broker_url_is_percent_decoded(url: str, address: tuple[bool, str, int, str, str, str]) -> None:
    tls, host, port, user, password, vhost = address
    assert parse_broker_url(url) == BrokerAddress(tls, host, port, user, Secret(password), vhost)


def test_an_address_does_not_show_its_password() -> None:
    assert "hunter2" not in repr(parse_broker_url("amqp://me:hunter2@rabbit/"))


@pytest.mark.parametrize(
    "url",
    ["", "rabbit", "amqp:rabbit", "http://rabbit", "amqp://", "amqp://me:pw@", "amqp://rabbit/a/b", "amqp://a b/",
     "amqp://rabbit/?heartbeat=1", "amqp://me:p#w@rabbit/", "amqp://rabbit:99999/", "amqp://me:5672/x@rabbit"],
)  # fmt: skip
def test_a_broker_url_that_is_not_one_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"^must "):
        parse_broker_url(url)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.255.255.254", "::1"])
def test_loopback_hosts(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "venue.example", "128.0.0.1", "::", "0.0.0.0", "localhost.", "127.1"])
def test_other_hosts(host: str) -> None:
    assert not is_loopback(host)


@given(st.text())
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    for parse in (parse_venue_url, parse_broker_url):
        for url in (text, f"wss://{text}", f"ws://{text}", f"amqp://{text}"):
            try:
                parse(url)
            except ValueError as error:
                assert str(error).startswith("must ")  # noqa: PT017
