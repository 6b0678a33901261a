"""The record loop."""
