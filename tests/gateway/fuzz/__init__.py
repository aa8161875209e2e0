"""Requests that no client should send, by the thousand, to the whole gateway in process; see ``__main__``."""
