"""(request, snapshot) -> route. Decisions only: no clock, no I/O."""
