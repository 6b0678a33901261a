"""Thresholds, alerts and their explanations."""
