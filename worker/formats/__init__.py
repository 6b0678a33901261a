"""Record formats: bytes to JSON objects."""
