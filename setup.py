"""What pyproject.toml cannot say: parts in C. Where they cannot be compiled, the package installs without them."""

from glob import glob

from setuptools import Extension, setup

KERNELS = "src/twinfer/model/kernels"

setup(
    ext_modules=[
        Extension("twinfer.kv._runs", ["src/twinfer/kv/runs.c"], extra_compile_args=["-O3"], optional=True),
        Extension("twinfer.engine._decode", ["src/twinfer/engine/decode.c"], extra_compile_args=["-O3"], optional=True),
        Extension(
            "twinfer.model.kernels._kernels",
            sources=sorted(glob(f"{KERNELS}/*.c")),
            depends=sorted(glob(f"{KERNELS}/*.h")),
            extra_compile_args=["-O3", "-std=gnu11", "-g0", "-fvisibility=hidden", "-Wno-psabi", "-pthread"],
            extra_link_args=["-pthread"],
            optional=True,
        ),
    ]
)
