"""Train ResNets on CIFAR-100 from scratch, understand the result, and ship it."""

__version__ = "0.1.0"
