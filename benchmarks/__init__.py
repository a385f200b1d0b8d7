"""Figures about voxproof itself: ``python -m benchmarks.NAME --json``."""
