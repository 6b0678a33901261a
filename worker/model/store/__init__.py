"""Model versions: what one is, and where they are kept."""
