"""The autoencoder: layers, recipe, fit."""
