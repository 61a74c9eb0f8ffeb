"""What differs between two engines or two programs, whatever their values are called."""
