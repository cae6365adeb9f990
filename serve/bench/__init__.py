"""The latency harness: how fast artifacts and stages run on the device at hand, and the page that shows it."""
