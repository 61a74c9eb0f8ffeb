"""What sequences leave behind for their next tokens: typed states, paged, shared, cached, and moved about."""
