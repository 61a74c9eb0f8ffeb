"""Whether programs compute the same: regions compared on sample inputs, and the search for the first that do not."""
