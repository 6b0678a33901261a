"""Where outcomes go: the interface with its registry (base), and the Kafka topics (kafka)."""
