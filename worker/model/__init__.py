"""The autoencoder: its layers, its fit, its scorer, and the versions of it on disk."""
