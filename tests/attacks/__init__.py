"""Attacks by callers without credentials, and what they cost the service."""
