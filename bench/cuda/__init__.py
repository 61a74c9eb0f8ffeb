"""``xllmc bench cuda``: what an engine reaches on a GPU, against the device's own limits and against transformers."""
