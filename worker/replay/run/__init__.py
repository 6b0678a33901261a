"""The live pipeline on history."""
