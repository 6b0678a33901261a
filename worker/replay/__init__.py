"""Replay: the live pipeline on history, with labels, what-if questions and a report."""
