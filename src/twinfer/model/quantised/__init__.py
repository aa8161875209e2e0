"""Checkpoints that are quantised already: what their tensors are, and what numbers they mean.

1. ``registry`` makes a scheme from ``config.json``, by the method that it names. A file here is a method.
2. ``matrix`` finds and checks the tensors that stand for each matrix. So far nothing needs torch.
3. While weights are prepared, a matrix is decoded in fp32, some rows at a time.
"""
