"""One process: one engine, one device, one role, and both ends of the handoff."""
