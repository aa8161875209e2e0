"""Who calls and what they may: signatures and bearer keys verified purely, policies, and the keys' database."""
