"""The smallest Starlette site that tracks: ``uvicorn examples.five_lines:app``.

Without ``CONVERT_ENDPOINT`` it reports to a collector on this machine (``python -m
convert_middleware.collector``), never to Convert.
"""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.requests import Request  # noqa: TC002 - an example reads better without typing blocks
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from convert_middleware import ConvertMiddleware

SECRET = os.environ.get("CONVERT_SECRET_KEY", "only for trying things out")
ENDPOINT = os.environ.get("CONVERT_ENDPOINT", "http://127.0.0.1:8070/track/")


async def buy(request: Request) -> Response:
    convert = request.state.convert
    variation = convert.experiment(11, 12)
    convert.goal(331)
    convert.revenue(35, transaction_id="ab12345", value="1599.99", products=10)
    return PlainTextResponse(f"You see variation {variation}.\n")


app = Starlette(routes=[Route("/", buy)])
app.add_middleware(ConvertMiddleware, project_id="1", customer_id="2", secret_key=SECRET, endpoint=ENDPOINT)
