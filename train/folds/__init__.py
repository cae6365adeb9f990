"""Cross-validation: one run for each fold, and what all of them say together."""
