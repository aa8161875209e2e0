"""Builds the kernels in C where there is a compiler. Everything else is in pyproject.toml."""

from glob import glob

from setuptools import Extension, setup

FOLDER = "src/twinfer/model/kernels"

setup(
    ext_modules=[
        Extension(
            "twinfer.model.kernels._kernels",
            sources=sorted(glob(f"{FOLDER}/*.c")),
            depends=sorted(glob(f"{FOLDER}/*.h")),
            extra_compile_args=["-O3", "-std=gnu11", "-g0", "-fvisibility=hidden", "-Wno-psabi"],
            optional=True,
        )
    ]
)
