"""resnet-cli: an architecture explorer and profiler for convnets."""

__version__ = "0.1.0"
