"""The server's health endpoint, which upstream has none of: GET /health, for container platforms and load balancers."""

from __future__ import annotations

import fastapi

from mlc_llm.serve.entrypoints import metrics_entrypoints
from mlc_llm.serve.server import ServerContext


async def health() -> dict[str, object]:
    """Says that models are served, and which. The server answers only once its engine has loaded them.

    Raises:
        fastapi.HTTPException: 503, no model is served.
    """
    context = ServerContext.current()
    models = context.get_model_list() if context else []
    if not models:
        raise fastapi.HTTPException(status_code=503, detail="no model is served")
    return {"status": "ok", "models": models}


def install() -> None:
    """Adds the endpoint to those of `mlc_llm serve` that ask for no key (--api-key): whoever watches it has none."""
    metrics_entrypoints.app.get("/health")(health)
