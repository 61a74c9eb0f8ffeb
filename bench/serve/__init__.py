"""A load generator for servers that speak OpenAI's protocol, and what it measures."""
