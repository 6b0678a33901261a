"""Mutated Kafka records through `worker run`: each is scored, dead-lettered, skipped as a tombstone or named, once."""
