"""Handoffs by the hundred thousand: the real machines, desks and engines, over a network that can do anything.

``python -m tests.fuzz --help`` tells how to run it, replay a seed, and break a rule on purpose.
"""
