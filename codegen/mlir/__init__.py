"""MLIR of a program's forward function: Linalg on tensors, through torch-mlir."""
