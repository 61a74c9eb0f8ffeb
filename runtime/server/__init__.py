"""The HTTP server of one engine, with the endpoints of OpenAI's."""
