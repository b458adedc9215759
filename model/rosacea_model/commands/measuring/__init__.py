"""Commands that measure models and what they draw."""
