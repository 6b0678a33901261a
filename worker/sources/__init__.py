"""Sources of history: files and topic ranges, read the same way by replay, train and infer-schema."""
