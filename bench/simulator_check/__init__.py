"""The simulator next to what it stands for: the same requests through a deployment of this machine, and through it."""
