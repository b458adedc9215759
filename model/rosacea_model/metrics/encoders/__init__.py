"""Encoders: networks that turn images into features, each named, pinned by its weights' SHA-256 and its resize rule."""
