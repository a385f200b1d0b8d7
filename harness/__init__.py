"""voxproof: proves whether the monitoring of a LiveKit voice agent tells the truth."""

__version__ = "0.1.0"
