"""Prepares photographs for training: safe reading, screening, resizing, and the zip that StyleGAN tools read."""
