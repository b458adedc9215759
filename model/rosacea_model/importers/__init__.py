"""Imports checkpoints of other projects as models.

`importer.import_checkpoint` is the way in: it reads the foreign file in a confined child process. Nothing
else looks at pickles, and what is served or trained from afterwards is safetensors.
"""
