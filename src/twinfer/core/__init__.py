"""The nouns of Twinfer: values that every layer shares. Standard library and msgspec only, no I/O."""
