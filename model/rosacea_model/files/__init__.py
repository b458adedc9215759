"""Reads and writes models on disk: folders, safetensors, archives, signatures, ONNX."""
