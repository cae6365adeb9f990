"""Training-aware architecture search: the paper's §3.3 over `zoo train`'s own functions, kept in a durable store."""
