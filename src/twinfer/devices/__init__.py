"""What hardware can do, as far as anybody knows: a catalogue with sources, model shapes, and the time of a step.

Nothing in here touches a device except ``measure``, which looks at this machine's.
"""
