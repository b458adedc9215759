"""Reading other projects' checkpoints, once, into this project's own model folder.

`importer.import_checkpoint` is the way in: it reads the foreign file in a confined child process. Nothing
else looks at pickles, and what is served or trained from afterwards is safetensors.
"""
