"""API keys: their file, their check, and `rosacea keys`."""
