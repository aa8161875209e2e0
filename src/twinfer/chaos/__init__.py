"""Disturbs a running deployment on this machine under load, and checks every answer it gives."""
