"""Kernels in C for what a CPU's decode steps spend their time with: products that read weights at memory's speed."""
