"""A program's forward function as plain ATen operations, which exporters to other forms read."""
