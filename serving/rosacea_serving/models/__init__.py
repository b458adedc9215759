"""Finds, copies, starts and replaces the served models."""
