"""The commands of `zoo` that belong to no other package."""
