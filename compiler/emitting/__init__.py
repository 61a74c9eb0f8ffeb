"""Writing an optimised program in a form that other tools read, and checking what was written by running it."""
