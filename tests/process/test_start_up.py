"""How long an operator waits; what the process shows of itself."""

from __future__ import annotations

from tests.process.harness import Stage


async def test_a_worker_gets_ready_does_one_cancel_and_ends(stage: Stage) -> None:
    await stage.open()
    worker = stage.worker()
    worker.spawn()
    seconds = await worker.until_ready()
    print(f"start-up: ready {seconds:.2f} s after the process was started")
    (order_id,) = stage.place(1)
    await stage.publish_each([order_id])
    await stage.settled()
    assert (await worker.get("/livez"))[0] == 200
    await stage.end_all()
    assert stage.check_finals(once=True)
    assert stage.venue.truth()[order_id].status == "Canceled"
