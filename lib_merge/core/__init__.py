"""Frozen values and Protocols that every other package speaks; no I/O in here."""
