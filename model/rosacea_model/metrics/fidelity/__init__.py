"""Fidelity and diversity of generated images: each metric is a pure function of two sets of features."""
