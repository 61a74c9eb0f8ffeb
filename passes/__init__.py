"""The passes: each file rewrites one thing. ``api`` is what a pass author imports."""
