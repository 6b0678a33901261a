"""A stranger adds one thing of each sort: one file, one registration."""
