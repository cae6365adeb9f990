"""Artifacts as other servers take them: a model repository for Triton, an InferenceService for KServe."""
