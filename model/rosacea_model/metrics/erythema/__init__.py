"""Compares the redness of generated faces with that of real ones, by label."""
