"""Finds the anomalous records of a Kafka topic and publishes them, explained, to an alerts topic."""
