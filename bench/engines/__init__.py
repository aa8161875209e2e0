"""One program per engine that ``bench.engine`` compares, each run by the Python that has the engine.

They share ``protocol`` only, and nothing of Twinfer but its own program uses it: peers live in environments of theirs.
"""
