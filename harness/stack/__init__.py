"""Provision, supervise and break the embedded stack."""
