"""Answers of the service as Python objects, and their verification."""
