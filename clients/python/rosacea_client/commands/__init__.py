"""The client's commands and their output."""
