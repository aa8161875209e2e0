"""The front door: HTTP in, token streams out. The only place where text lives. Stateless across requests."""
