"""Alertmanager's webhook into ``alerts_history``: one row an episode, and a 2xx only once it is stored. Standard library only."""
