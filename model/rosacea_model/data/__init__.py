"""Photographs made ready for training: read safely, screened, resized, and written as the zip StyleGAN tools read."""
