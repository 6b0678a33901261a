"""What tests and benchmarks share, and the generators of files that are kept in the repository."""
