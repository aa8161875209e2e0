"""The control plane: gRPC with core's message types, no second definition of them."""

import os

# gRPC in Python has no setting for the lowest TLS version. What it has is a list of ciphers for TLS 1.2: with only one
# in it that needs a pre-shared key, which nobody has, what remains is TLS 1.3. Read by gRPC when it is first used.
os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-PSK-CHACHA20-POLY1305"
