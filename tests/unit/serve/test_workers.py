"""Work beside the event loop: what was refused there leaves nothing in memory."""

import asyncio
import gc
import weakref
from functools import partial
from typing import Any, NoReturn, cast

from mlscale.serve.http.request_error import Refused
from mlscale.serve.http.responses import ResponseSender
from mlscale.serve.prometheus import ServerMetrics
from mlscale.serve.workers import Workers


class Body(bytearray):
    """A body that can be watched."""


def refuse(body: Body) -> NoReturn:
    raise Refused("it is damaged")


def test_a_refused_body_is_freed_at_once_and_not_by_the_next_garbage_collection() -> None:
    async def main() -> None:
        workers = Workers(asyncio.get_running_loop(), ResponseSender(ServerMetrics(), print))
        refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        body = Body(100)
        watched = weakref.ref(body)
        reject = partial(_keep_message, refused)
        workers.run_in_thread(cast(Any, None), partial(refuse, body), print, reject)
        del body
        assert await refused == "it is damaged"
        workers.close()  # the thread has let go of its work
        await asyncio.sleep(0)
        assert watched() is None

    gc.collect()
    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()


def _keep_message(refused: asyncio.Future[str], error: Refused) -> None:
    refused.set_result(error.message)
