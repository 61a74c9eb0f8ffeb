"""ONNX of a program's forward function."""
