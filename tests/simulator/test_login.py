"""The upgrade: protocol sections 1.2 to 1.5, with the vectors of 1.4."""

from __future__ import annotations

import asyncio
import ssl

import pytest
import trustme
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.simulator.client import KEY, SECRET, dial, ready, signed, utc_now
from tests.simulator.conftest import Open
from worker.simulator import Connect, Login, Simulator
from worker.simulator.login import Gate, bare_host
from worker.simulator.wire import parse_stamp, stamp

SECRET_A, SECRET_B = "k3y0nly4testz9q7w2m5x8c1v6b0n4ht", "0examp1esecret7not8for9trading3x"
SANDBOX, LIVE = "wss.sandbox.prime.kraken.com", "wss.prime.kraken.com"
V1_AT = "2019-02-13T05:17:32.000000Z"

VECTORS = [
    (SECRET_A, V1_AT, SANDBOX, "I90pvxl7hQNB8W-BM_Pa_yu33t1-3bls8VTVXsJoVqo="),
    (SECRET_A, V1_AT, LIVE, "MqjpV39bEZLzSY7GeQ9kT8duhaYUZiOTrJMPn1Q-qmA="),
    (SECRET_B, "2026-03-09T14:07:05.123456Z", LIVE, "WiQoNgV0oYrixpV4McfnF9agemOB5b1JRI5qy7HhcpA="),
    (SECRET_B, "2026-03-09T09:00:13.000000Z", SANDBOX, "i4AmH_MOYsjBA01pFbM9RmWcqU4AZO7m6iLYnd-wWy8="),
    (SECRET_B, "2026-03-09T09:00:00.000000Z", SANDBOX, "AvY768623jruTDfhSQe1Awh7LpUSuxiYqXavDB8ECnA="),
]
V1_STANDARD = "I90pvxl7hQNB8W+BM/Pa/yu33t1+3bls8VTVXsJoVqo="
MISTAKES = {
    "port in the host": "h6Kv31S-wWc1vhVYN5In9wx16qZ21WuxF4sU3M5SfY8=",
    "slash behind the path": "-Hevj5jhqdSiKfbIFL7ERMZUtHIdL1TCg0_3iOlvC1U=",
    "LF at the end": "51ylyJ_CjwXzGSeMuPNm1QJRr1-gMJZh2ov3mK6U87w=",
    "backslash and n": "ErdgTA5fh2mW62p1KblVHNcaWM1W4Xkz08Ri_hIrnzo=",
    "decoded secret": "IwwT5SoQO1WdA4NUtuNqSs-2luq95bSObBXLYt-lOuo=",
    "milliseconds": "5U-obdj1U3ZPGgUEMO2ncOA_bJ3rtMNjc1kIbfq0aKU=",
}


def asked(gate: Gate, sign: str, *, at: str = V1_AT, host: str = SANDBOX, path: str = "/ws/v1", key: str = KEY) -> int:
    """The status the gate answers; 101 lets in."""
    now_us = parse_stamp(V1_AT)
    assert now_us is not None
    refusal = gate.check(key=key, sign=sign, timestamp=at, host=host, path=path, now_us=now_us)
    return 101 if refusal is None else refusal.status


def gate_of(secret: str = SECRET_A, **login: object) -> Gate:
    return Gate(Login(key=KEY, secret=secret, clock_skew=0.0, **login))  # type: ignore[arg-type]  # keywords of a test


@pytest.mark.parametrize(("secret", "at", "host", "sign"), VECTORS)
def test_the_vectors_are_let_in(secret: str, at: str, host: str, sign: str) -> None:
    assert asked(gate_of(secret), sign, at=at, host=host) == 101
    assert asked(gate_of(secret), sign, at=at, host=f"{host}:443") == 101  # the port is the client's to drop


@pytest.mark.parametrize("sign", MISTAKES.values(), ids=MISTAKES.keys())
def test_signatures_of_typical_mistakes_are_refused(sign: str) -> None:
    lenient = gate_of(alphabet="both", padding="optional")
    assert asked(lenient, sign) == 401


def test_a_timestamp_in_milliseconds_is_refused_even_with_its_own_signature() -> None:
    assert asked(gate_of(), MISTAKES["milliseconds"], at="2019-02-13T05:17:32.000Z") == 401


def test_alphabet_and_padding_are_as_scripted() -> None:
    urlsafe = VECTORS[0][3]
    assert asked(gate_of(), V1_STANDARD) == 401
    assert asked(gate_of(alphabet="both"), V1_STANDARD) == 101
    assert asked(gate_of(alphabet="standard"), V1_STANDARD) == 101
    assert asked(gate_of(alphabet="standard"), urlsafe) == 401
    assert asked(gate_of(), urlsafe.rstrip("=")) == 401
    assert asked(gate_of(padding="optional"), urlsafe.rstrip("=")) == 101


def test_key_path_host_and_reuse_are_checked() -> None:
    sign = VECTORS[0][3]
    gate = gate_of(hosts=(SANDBOX,))
    assert asked(gate, sign, key="OTHERKEY") == 401
    assert asked(gate, sign, path="/ws/v1/") == 404
    assert asked(gate_of(hosts=(LIVE,)), sign) == 401
    assert asked(gate, sign, host="127.0.0.1:8443") == 101  # the scripted host is the one that is signed
    assert asked(gate, sign) == 401
    again = gate_of(refuse_reuse=False)
    assert [asked(again, sign), asked(again, sign)] == [101, 101]


def test_the_clock_may_be_off_by_so_much() -> None:
    gate = Gate(Login(key=KEY, secret=SECRET_A, clock_skew=5.0, refuse_reuse=False))
    base = parse_stamp(V1_AT)
    assert base is not None
    for off_s, status in ((0, None), (5, None), (-5, None), (6, 401), (-6, 401)):
        found = gate.check(
            key=KEY, sign=VECTORS[0][3], timestamp=V1_AT, host=SANDBOX, path="/ws/v1", now_us=base + off_s * 1_000_000
        )
        assert (found and found.status) == status


def test_the_host_loses_its_port() -> None:
    assert [bare_host(h) for h in ("a.b", "a.b:443", "[::1]:80", "127.0.0.1:9")] == ["a.b", "a.b", "::1", "127.0.0.1"]


@pytest.mark.parametrize("text", ["2026-02-30T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01 00:00:00Z", "", None, 7])
def test_no_time_is_read_from_what_is_none(text: object) -> None:
    assert parse_stamp(text) is None


@pytest.mark.parametrize("micros", [0, 1, 999_999, 1_600_000_000_123_456])
def test_times_read_back(micros: int) -> None:
    assert parse_stamp(stamp(micros)) == micros


async def status_of(venue: Simulator, **headers: str) -> tuple[int, dict[str, str]]:
    """HTTP status and headers of a refused upgrade."""
    with pytest.raises(InvalidStatus) as refused:
        async with dial(venue, **headers):
            pass
    response = refused.value.response
    return response.status_code, dict(response.headers.raw_items())


async def test_hello_comes_first_and_its_session_id_is_new_each_time(open_venue: Open) -> None:
    venue = await open_venue()
    ids = set()
    for _ in range(2):
        async with dial(venue) as client:
            hello = await client.frame()
            assert set(hello) == {"type", "ts", "session_id"}
            assert hello["type"] == "hello"
            assert parse_stamp(hello["ts"]) is not None
            assert len(hello["session_id"]) == 13
            assert hello["session_id"].isalnum()
            assert hello["session_id"].isupper()
            ids.add(hello["session_id"])
    assert len(ids) == 2


async def test_each_header_is_required(open_venue: Open) -> None:
    venue = await open_venue()
    for missing in ("ApiKey", "ApiSign", "ApiTimestamp"):
        headers = signed("127.0.0.1")
        del headers[missing]
        assert (await status_of(venue, **headers))[0] == 401
    assert (await status_of(venue, **signed("127.0.0.1", secret=SECRET + "x")))[0] == 401
    assert (await status_of(venue, **signed(f"127.0.0.1:{venue.port}")))[0] == 401
    assert [upgrade.status for upgrade in venue.ledger.upgrades] == [401] * 5


async def test_a_rotated_secret_counts_from_then_on(open_venue: Open) -> None:
    venue = await open_venue()
    async with ready(venue) as old:
        venue.gate.secrets[KEY] = "another0secret"
        assert (await status_of(venue, **signed("127.0.0.1")))[0] == 401
        async with dial(venue, **signed("127.0.0.1", secret="another0secret")) as client:
            assert (await client.frame())["type"] == "hello"
        await old.send("Ping", ts=utc_now(), data=[{}])
        assert (await old.frame())["type"] == "Pong"


@pytest.mark.parametrize("status", [401, 403, 429, 503])
async def test_so_many_upgrades_are_refused(open_venue: Open, status: int) -> None:
    venue = await open_venue()
    venue.refuse(2, status, retry_after="7")
    for _ in range(2):
        found, headers = await status_of(venue)
        assert (found, headers["Retry-After"]) == (status, "7")
    async with ready(venue):
        pass


async def test_a_redirect_names_another_place(open_venue: Open) -> None:
    venue = await open_venue()
    venue.refuse(1, 302, location="ws://127.0.0.1:1/elsewhere")
    reader, writer = await asyncio.open_connection("127.0.0.1", venue.port)
    writer.write(
        b"GET /ws/v1 HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    writer.close()
    await writer.wait_closed()
    assert head.startswith("HTTP/1.1 302 ")
    assert "Location: ws://127.0.0.1:1/elsewhere" in head


async def test_all_upgrades_are_refused_until_accepted(open_venue: Open) -> None:
    venue = await open_venue()
    venue.refuse(-1, 503)
    for _ in range(3):
        assert (await status_of(venue))[0] == 503
    venue.accept()
    async with ready(venue):
        pass


async def test_an_upgrade_is_never_answered(open_venue: Open) -> None:
    venue = await open_venue(connect=(Connect(first=1, last=1, status=-1),))
    with pytest.raises(TimeoutError):
        await connect(venue.url, additional_headers=signed("127.0.0.1"), proxy=None, open_timeout=0.2)
    async with ready(venue):
        pass


async def test_the_script_speaks_of_attempts_by_number(open_venue: Open) -> None:
    venue = await open_venue(connect=(Connect(first=2, last=3, status=429), Connect(first=4, hello="wrong")))
    async with ready(venue):
        pass
    assert [(await status_of(venue))[0] for _ in range(2)] == [429, 429]
    async with dial(venue) as client:
        assert (await client.frame())["type"] == "welcome"


async def test_no_hello_and_a_late_one(open_venue: Open) -> None:
    venue = await open_venue()
    venue.next_connect(Connect(hello="never"))
    async with dial(venue) as client:
        await client.quiet()
    venue.next_connect(Connect(hello_delay=0.1))
    async with dial(venue) as client:
        await client.subscribe()
        assert (await client.frame())["error"]["code"] == 1  # nothing may be sent before hello
        assert (await client.frame())["type"] == "hello"


async def test_the_venue_speaks_tls() -> None:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    async with Simulator(key=KEY, secret=SECRET, host="localhost", tls=server) as venue:
        url = f"wss://localhost:{venue.port}/ws/v1"
        assert venue.url.startswith("wss://")
        async with connect(url, additional_headers=signed("localhost"), ssl=client, proxy=None) as connection:
            assert b'"hello"' in await connection.recv(decode=False)


async def test_sessions_are_capped(open_venue: Open) -> None:
    venue = await open_venue(login=Login(max_sessions=1, max_sessions_status=429))
    async with ready(venue):
        assert (await status_of(venue))[0] == 429
    await venue.until(lambda: not venue.sessions)
    async with ready(venue):
        pass


def test_no_secret_is_shown() -> None:
    assert SECRET not in repr(Login(secret=SECRET))
