"""The Open Inference Protocol, version 2: its tensors, requests and descriptions; no HTTP and no gRPC."""
