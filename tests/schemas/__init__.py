"""Random schemas through every door of a real deployment: every answer that was finished must be one to its schema."""
