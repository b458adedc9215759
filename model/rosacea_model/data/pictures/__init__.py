"""Decodes pictures: formats, colours, sizes."""
