"""What the metrics promise is counted by the running worker (contract 8)."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.process.harness import Stage, Worker
from tests.support.timing import SECOND, eventually

LINKS = ("consume_kill", "consume_cancel", "publish_kill", "publish_cancel")


async def scrape(worker: Worker) -> dict[str, float]:
    """Every sample: the labels' values, if any, follow its name."""
    status, text = await worker.get("/metrics")
    assert status == 200
    return {
        " ".join([found.name.removeprefix("cancel_worker_"), *found.labels.values()]): found.value
        for family in text_string_to_metric_families(text)
        for found in family.samples
    }


async def test_replies_without_a_queue_and_the_delay_of_confirms_are_counted(stage: Stage) -> None:
    await stage.open()
    await stage.broker.declare_queue("answers", kind="classic")
    worker = await stage.start()
    await stage.publish_each(stage.place(3), reply_to=stage.broker.name("answers"))
    await stage.publish_each(stage.place(2), reply_to="nobody-listens")
    await stage.settled()

    async def returned() -> bool:
        return (await scrape(worker))["replies_returned_total"] == 2

    await eventually(returned)
    found = await scrape(worker)
    assert found["replies_total"] == 5
    assert found["confirm_delay_seconds_count"] == found["events_confirmed_total cancel"] > 0
    assert found["confirm_delay_seconds_sum"] > 0
    assert await worker.readiness() == []


async def test_log_ins_and_links_are_counted_when_tried_refused_and_lost(stage: Stage) -> None:
    await stage.open()
    stage.venue.refuse(3, 503)
    worker = await stage.start()
    found = await scrape(worker)
    assert found["session_refusals_total"] == 3
    assert found["session_attempts_total"] == 3 + found["sessions_ready"]
    assert [found[f"link_attempts_total {link}"] for link in LINKS] == [1, 1, 1, 1]
    assert [found[f"link_losses_total {link}"] for link in LINKS] == [0, 0, 0, 0]
    await stage.broker.close_connections()

    async def lost() -> bool:
        after = await scrape(worker)
        return all(after[f"link_losses_total {link}"] >= 1 < after[f"link_attempts_total {link}"] for link in LINKS)

    await eventually(lost, 20 * SECOND)
    await worker.until_ready()
