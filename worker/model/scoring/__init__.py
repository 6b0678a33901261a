"""From rows to scores."""
