"""Limits on connections and on memory before a caller is authenticated."""
