"""The published benchmark: the same work against Twinfer, vLLM and llama.cpp on one machine, in one go.

1. ``workloads`` says what is asked and what a good request keeps, ``systems`` who is asked and how each is started.
2. ``campaign`` starts one system after the other (``launch``) and has ``twinfer bench run`` offer it all workloads.
   Each of these cells is a file (``cells``), so that what was interrupted goes on where it was.
3. ``report`` makes docs/benchmarks.md and its figures from those files.
"""
