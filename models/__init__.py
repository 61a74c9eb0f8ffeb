"""Tracing Hugging Face causal language models into one step graph over flat tokens."""
