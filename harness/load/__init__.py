"""Arrivals, caller processes and Locust."""
