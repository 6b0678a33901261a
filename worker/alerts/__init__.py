"""From records above their threshold to alerts: silences, groups, explanations, bytes."""
