"""Train a network on CIFAR-100: `python train.py --help`."""

import sys

from resnet_cifar100.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
