"""The web page: `python huggingface_app/app.py --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from resnet_cifar100.cli import main

if __name__ == "__main__":
    sys.exit(main(["app", *sys.argv[1:]]))
