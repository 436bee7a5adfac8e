"""Architectures that are written as ONNX graphs here, from their own files or from random weights."""
