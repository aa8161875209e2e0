"""The model in torch: what a checkpoint is, weights prepared once, one decoder for all families, and the sampler.

``spec``, ``checkpoint``, ``fingerprint`` and ``served`` import no torch, so a worker can say what it serves before it
loads anything; ``load`` and ``runner`` do the rest.
"""
