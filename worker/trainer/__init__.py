"""The sidecar trainer: from recent records to a model version in the store."""
