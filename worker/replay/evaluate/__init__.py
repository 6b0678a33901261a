"""How good what replay found is."""
