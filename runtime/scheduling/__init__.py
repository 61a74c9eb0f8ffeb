"""Which tokens the next step computes: waiting requests, running sequences, and who makes room for whom."""
