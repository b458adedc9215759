"""Models on disk: folders, safetensors, archives, signatures, ONNX."""
