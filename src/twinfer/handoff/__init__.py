"""The handoff of a token range's KV between two workers, as pure state machines: reserve, stream, seal, commit."""
