"""What pyproject.toml cannot say: parts in C. Where they cannot be compiled, the package installs without them."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension("twinfer.kv._runs", ["src/twinfer/kv/runs.c"], extra_compile_args=["-O3"], optional=True),
    ]
)
