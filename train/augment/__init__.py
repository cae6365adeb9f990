"""What happens to a training picture: on the host, on the device, mixed with another, erased."""
