"""A health endpoint for the server, which upstream lacks: GET /health, for container platforms and load balancers."""

from __future__ import annotations

import fastapi

from mlc_llm.serve.entrypoints import metrics_entrypoints
from mlc_llm.serve.server import ServerContext

from . import engine_watch


async def health() -> dict[str, object]:
    """Lists the models that are served. The server answers only after its engine has loaded them.

    Raises:
        fastapi.HTTPException: 503, no model is served, or the engine of one has failed for good.
    """
    context = ServerContext.current()
    models = context.get_model_list() if context else []
    if not models:
        raise fastapi.HTTPException(status_code=503, detail="no model is served")
    for model in models:
        if failure := engine_watch.failure(context.get_engine(model)):
            raise fastapi.HTTPException(status_code=503, detail=f"{model}: {failure}")
    return {"status": "ok", "models": models}


def install() -> None:
    """Adds the endpoint to those of `mlc_llm serve` that need no key (--api-key), because monitoring has none."""
    metrics_entrypoints.app.get("/health")(health)
