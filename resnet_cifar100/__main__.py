"""`python -m resnet_cifar100 COMMAND ...`."""

import sys

from resnet_cifar100.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
