"""Write labelled pictures of the test set: `python test_data_setup/get_test_images.py --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from resnet_cifar100.cli import main

if __name__ == "__main__":
    sys.exit(main(["samples", *sys.argv[1:]]))
