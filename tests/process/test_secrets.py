"""No secret leaves the process, whatever fails (contract 4.8)."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from tests.process.harness import KEY, SECRET, Stage, cancel_of
from tests.support.timing import eventually
from worker.simulator import Behaviour, Script


def _told(stage: Stage) -> str:
    logs = "\n".join(worker.log() for worker in stage.workers)
    return logs + "\n".join(event.raw.decode() + str(event.message.headers) for event in stage.events.seen)


def _arguments(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode()


async def test_a_run_with_every_failure_tells_no_secret(stage: Stage) -> None:
    level = "debug"
    await stage.open(Script(behaviour=Behaviour(gap=0.05)))
    password = urlsplit(stage.broker.url).password
    assert password is not None and len(password) >= 5
    secrets = (KEY, SECRET, password)
    pages = ""

    async def look() -> None:
        nonlocal pages
        for worker in stage.workers:
            if worker.running:
                for path in ("/status", "/metrics", "/readyz", "/livez"):
                    pages += (await worker.get(path))[1]

    worker = await stage.start(log__level=level, venue__unavailable_after=0.2, venue__auth_retry_min=1.0)
    pages += _arguments(worker.process.pid)
    await stage.publish_each(stage.place(5))
    # What a publisher may echo by mistake is not ours to know; what we hold is.
    await stage.publish_body(b"no JSON", message_id="bad")
    await stage.publish([cancel_of(stage.venue.place(behaviour=Behaviour(play="error", msg="no")).order_id)])
    stage.venue.refuse(-1, 401)
    stage.venue.cut()
    await worker.until_unready("401")
    await look()
    if stage.broker.node is not None:
        await stage.broker.close_connections()
    stage.venue.accept()
    await look()
    await stage.settled(40)
    await look()
    await worker.terminate()

    # A key that the venue does not know, a password that the broker does not know, a host that is not there.
    wrong = stage.broker.url.replace(f":{password}@", ":0ther-passw0rd@")
    for settings in (
        {"venue__api_secret": "wr0ng-s3cret-value"},
        {"broker__url": wrong},
        {"broker__url": wrong.replace("127.0.0.1", "no-such-host.invalid")},
        {"venue__url": "wss://no-such-host.invalid/ws/v1"},
    ):
        failing = stage.worker(log__level=level, **settings)
        failing.spawn()
        await eventually(lambda: failing.log_events("worker_started"), 20)  # noqa: B023
        await eventually(lambda: any('"warning"' in line for line in failing.log().splitlines()), 20)  # noqa: B023
        await look()
        pages += _arguments(failing.process.pid)
        await failing.terminate()
    everything = _told(stage) + pages
    for secret in (*secrets, "0ther-passw0rd", "wr0ng-s3cret-value"):
        assert secret not in everything, everything[max(0, everything.index(secret) - 300) :][:400]
    upgrades = [upgrade.sign for upgrade in stage.venue.ledger.upgrades if upgrade.sign]
    assert upgrades and not any(sign in everything for sign in upgrades)


async def test_secrets_in_files_are_read_anew_at_every_log_in(stage: Stage, tmp_path: Path) -> None:
    """A rotated key is picked up; the old session goes on (contract 6)."""
    await stage.open()
    secret_file, key_file = tmp_path / "secret", tmp_path / "key"
    secret_file.write_text("not-yet-the-right-secret\n")
    key_file.write_text(KEY + "\n")
    url_file = tmp_path / "url"
    url_file.write_text(stage.broker.url + "\n")
    worker = stage.worker(
        venue__api_secret_file=str(secret_file), venue__api_key_file=str(key_file), broker__url_file=str(url_file)
    )
    for name in ("VENUE__API_SECRET", "VENUE__API_KEY", "BROKER__URL"):
        del worker._environment[f"CANCEL_WORKER__{name}"]
    worker.spawn()
    await worker.until_unready("401")
    secret_file.write_text(SECRET)
    await worker.until_ready()
    await stage.publish_each(stage.place(1))
    await stage.settled()
    assert "not-yet-the-right-secret" not in worker.log() and SECRET not in worker.log()
    status_page = await worker.status()
    assert status_page["ready"] is True
    assert all(status_page["started"] < each["since"] < status_page["now"] for each in status_page["sessions"]["each"])
