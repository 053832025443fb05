"""The web page: `python huggingface_app/app.py --help`."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from resnet_cifar100.cli import main

if __name__ == "__main__":
    published = HERE / "model.onnx"  # on the Hub, beside this file as the package is
    flags = ["--checkpoint-path", str(published)] if published.exists() else []
    sys.exit(main(["app", *flags, *sys.argv[1:]]))
