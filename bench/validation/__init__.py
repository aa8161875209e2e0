"""Holds what the catalogue computes to what others measured."""
