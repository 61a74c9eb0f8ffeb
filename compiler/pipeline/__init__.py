"""Which passes run, in what order and with what options; running them as checked transactions, and once more."""
