"""Commands of ``xllmc`` that need the compiler, one a file."""
