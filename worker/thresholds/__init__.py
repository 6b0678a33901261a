"""From past scores to the threshold of one partition. Needs records alone."""
