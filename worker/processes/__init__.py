"""Processes and wiring: from settings to objects that run."""
