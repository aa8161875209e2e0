"""The control plane: gRPC with core's message types, no second definition of them."""
