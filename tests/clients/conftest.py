"""The suite runs in environments of its own, see ``run.py``."""

collect_ignore = ["suite"]
