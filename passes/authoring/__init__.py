"""What makes a pass of what an author writes; ``passes.api`` is the door to it."""
