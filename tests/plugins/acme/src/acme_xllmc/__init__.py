"""A plugin of xllmc: the soft cap of Gemma's logits as one kernel."""
