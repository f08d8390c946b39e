"""Health endpoints for the server, which upstream lacks, for container platforms and load balancers.

| GET or HEAD | status 200 | status 503 |
|---|---|---|
| `/health/live` | the process is worth keeping, even while it loads or drains | an engine is dead or stuck |
| `/health/ready`, `/health` | requests are taken | the model is loading, the server drains, or as above |
"""

from __future__ import annotations

import asyncio
import time

import fastapi

from mlc_llm.serve.entrypoints import metrics_entrypoints
from mlc_llm.serve.server import ServerContext

from . import engine_watch

PATHS: tuple[str, ...] = ("/health", "/health/live", "/health/ready")

MONITORING = (*PATHS, "/metrics")
"""Paths that are answered while requests are refused, have no body, and are not logged."""

ANSWER_SECONDS = 0.5
"""How long a probe waits for the engine, which answers between two steps. Kubernetes gives a probe one second."""

STUCK_SECONDS = 600.0
"""An engine is stuck if it has not answered for so long. A step reads up to a chunk of a prompt, 2,048 tokens, which
takes minutes on a slow CPU: restarting such a server would lose the requests, and the next ones take as long.
"""

unready = ""
"""Why the server takes no requests now; empty if it does."""

router = fastapi.APIRouter()


async def live() -> dict[str, object]:
    """Says whether the process works. Loading and draining are part of its work.

    Raises:
        fastapi.HTTPException: 503, an engine is dead or stuck: restart the process.
    """
    await _check_engines()
    return {"status": "ok"}


async def ready() -> dict[str, object]:
    """Lists the models that are served.

    Raises:
        fastapi.HTTPException: 503, send requests to another server.
    """
    context = ServerContext.current()
    models = context.get_model_list() if context else []
    if unready or not models:
        raise fastapi.HTTPException(status_code=503, detail=unready or "no model is served")
    await _check_engines()
    return {"status": "ok", "models": models}


async def _check_engines() -> None:
    context = ServerContext.current()
    for model in context.get_model_list() if context else []:
        engine = context.get_engine(model)
        failure = engine_watch.failure(engine)
        if not failure and await _silent_seconds(engine) > STUCK_SECONDS:
            failure = f"the engine has not answered for {STUCK_SECONDS:g} s; restart it"
        if failure:
            raise fastapi.HTTPException(status_code=503, detail=f"{model}: {failure}")


async def _silent_seconds(engine: object) -> float:
    """Asks an engine whether it works; returns for how long it has owed the answer, or 0."""
    question = engine_watch.ask(engine)
    if question is None:
        return 0
    # All probes wait for the same answer: an engine that is stuck does not collect questions.
    await asyncio.wait([asyncio.wrap_future(question.answer)], timeout=ANSWER_SECONDS)
    return 0 if question.answer.done() else time.monotonic() - question.asked


for _path, _handler in (("/health/live", live), ("/health/ready", ready), ("/health", ready)):
    router.get(_path)(_handler)
    router.head(_path, include_in_schema=False)(_handler)


def install() -> None:
    """Adds the endpoints to those of `mlc_llm serve` that need no key (--api-key), because monitoring has none."""
    metrics_entrypoints.app.include_router(router)
