"""Trains one model for each combination of settings and seed, one after the other, and compares what came out."""
