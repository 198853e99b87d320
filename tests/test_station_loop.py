"""The event loop that MQTT and OPC UA run in."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from supersimplenet.station.loop import Loop


@pytest.mark.filterwarnings("ignore:.*policy.*:DeprecationWarning")  # from Python 3.14 on
def test_it_is_a_selector_whatever_the_system_takes_by_default(monkeypatch):
    class Other(asyncio.SelectorEventLoop):
        """In place of Windows' proactor, which cannot wait for sockets of others."""

    monkeypatch.setattr(type(asyncio.get_event_loop_policy()), "_loop_factory", Other)

    async def running() -> type:
        return type(asyncio.get_running_loop())

    with ThreadPoolExecutor(1) as thread:  # in this one the browser of other tests may have a loop that runs
        assert thread.submit(lambda: asyncio.run(running())).result() is Other
    loop = Loop("test")
    assert loop.run(running()) is asyncio.SelectorEventLoop
    loop.close()


def test_what_still_runs_is_cancelled_and_its_generators_end_when_it_is_closed():
    loop, ended, begun = Loop("test"), [], threading.Event()

    async def numbers():
        try:
            while True:
                yield 1
        finally:
            ended.append("generator")

    async def forever() -> None:
        own = numbers()
        await anext(own)
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("task")

    loop.begin(forever())
    assert begun.wait(30)
    loop.close()
    assert sorted(ended) == ["generator", "task"]
    assert all(thread.name != "test" for thread in threading.enumerate())
