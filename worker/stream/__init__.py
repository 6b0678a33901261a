"""The record loop: batches, publish-then-commit, rebalances, model swaps."""
