"""Metrics and call history of a livekit-agents worker: ``voxproof_telemetry.attach(session, ctx)``."""

from voxproof_telemetry.attach import attach
from voxproof_telemetry.errors import TelemetryError
from voxproof_telemetry.worker import prepare

__all__ = ["TelemetryError", "attach", "prepare"]
