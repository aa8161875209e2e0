"""Twinfer: large language models served with prefill and decode on the hardware each likes best."""

__version__ = "0.1.0"
__all__ = ["__version__"]
