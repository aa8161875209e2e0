"""KV blocks: who owns each, where a prefix is found again, and the memory they lie in."""
