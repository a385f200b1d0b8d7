"""Metrics and call history of a livekit-agents worker: ``voxproof_telemetry.attach(session, ctx)``."""

from voxproof_telemetry.attach import attach, check_executor
from voxproof_telemetry.errors import TelemetryError

__all__ = ["TelemetryError", "attach", "check_executor"]
