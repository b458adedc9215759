"""The networks of StyleGAN2-ADA on native torch operations."""
