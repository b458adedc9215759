"""API keys: the key file, verification, and the `rosacea keys` command."""
