"""What stops the telemetry from being attached."""


class TelemetryError(Exception):
    """The worker is set up so that its telemetry would be lost; the message says what to set."""
