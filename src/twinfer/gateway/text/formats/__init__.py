"""How families of models write calls of tools: one file each, behind the protocol in ``base``."""
