"""Ends requests whose client has gone.

At the pinned commit upstream's server notices that a client without a stream has gone only when the engine has written
more text for it. `request_check` puts `while_connected` around every route.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import fastapi

POLL_SECONDS = 0.5
"""Time between two looks at whether a client is still there."""

CLIENT_GONE = 499
"""Status of an answer that nobody reads, in logs; nginx introduced it."""


async def while_connected(client: fastapi.Request, work: Coroutine[Any, Any, Any]) -> Any:
    """Returns what `work` returns. Cancels it when the client disconnects, which ends its request in the engine too."""

    working = asyncio.ensure_future(work)

    async def watch() -> None:
        # Before Python 3.11, is_disconnected can swallow the cancellation below: it cancels a scope of its own.
        while not await client.is_disconnected() and not working.done():
            await asyncio.sleep(POLL_SECONDS)

    tasks = working, asyncio.ensure_future(watch())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else fastapi.Response(status_code=CLIENT_GONE)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
