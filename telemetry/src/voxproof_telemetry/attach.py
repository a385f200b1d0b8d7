"""One line in the entrypoint of a livekit-agents worker: metrics and rows of the call that begins.

    voxproof_telemetry.attach(session, ctx, agent_version="1.4.2")

Said before ``session.start``. Nothing here imports livekit-agents: session and context are what the entrypoint already has.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from voxproof_telemetry.call import Call
from voxproof_telemetry.dispatch import Dispatch
from voxproof_telemetry.errors import TelemetryError
from voxproof_telemetry.metrics import ROW_ERRORS, ROWS_LOST
from voxproof_telemetry.rows import RowWriter
from voxproof_telemetry.worker import check_executor

log = logging.getLogger("voxproof.telemetry")


def attach(
    session: Any,
    ctx: Any,
    *,
    agent_version: str = "",
    supabase_url: str | None = None,
    supabase_key: str | None = None,
) -> None:
    """Observes one call from now to its end.

    session: AgentSession, not yet started. ctx: JobContext. Rows go to ``SUPABASE_URL`` with ``SUPABASE_SERVICE_KEY`` unless given here; with
    neither, metrics only, said in the log. Raises TelemetryError if the metrics of this process would never be scraped, or the URL is none.
    """
    check_executor(ctx.proc)
    url = supabase_url or os.environ.get("SUPABASE_URL")
    key = supabase_key or os.environ.get("SUPABASE_SERVICE_KEY")
    dispatch = Dispatch.parsed(getattr(ctx.job, "metadata", ""))
    rows = None
    if url and key:
        if not url.startswith(("http://", "https://")):
            raise TelemetryError(f"SUPABASE_URL is {url!r}; it begins with https://, or http:// on a network of your own")
        rows = RowWriter(
            url=url,
            key=key,
            call_id=dispatch.call_id,
            on_error=lambda table: ROW_ERRORS.labels(table).inc(),
            on_lost=lambda table: ROWS_LOST.labels(table).inc(),
        )
    else:
        log.warning("SUPABASE_URL or SUPABASE_SERVICE_KEY is not set: metrics only, no call history")
    Call(session, ctx, dispatch=dispatch, agent_version=agent_version, rows=rows).begin()
