"""Arithmetic over captured data: pure functions of values."""
