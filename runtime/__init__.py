"""The runtime: loads an engine directory and runs it. Torch-free."""
