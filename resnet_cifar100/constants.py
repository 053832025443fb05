"""Facts about CIFAR-100 that never change: statistics, superclasses, the address and checksums."""

from typing import NamedTuple

CIFAR100, SYNTHETIC = "CIFAR-100", "SYNTHETIC"  # titles: the photographs, or drawings instead
NUM_CLASSES = 100
IMAGE_SIZE = 32  # pixels a side; images are RGB

# Mean and standard deviation of each channel over the 50,000 training images, in 0..1.
MEAN = (0.5071, 0.4865, 0.4409)
STD = (0.2673, 0.2564, 0.2762)


class FileFacts(NamedTuple):
    """Size in bytes and checksum of one official file."""

    size: int
    sha256: str


# Of files with the MD5 sums that https://www.cs.toronto.edu/~kriz/cifar.html and torchvision name.
ARCHIVE_URL = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
ARCHIVE = FileFacts(
    169_001_437,
    "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
)
FOLDER = "cifar-100-python"
MEMBERS = {
    "train": FileFacts(
        155_249_918,
        "735e79b04f092ca3d2e6d07f368c0a7d70d48c48d28865950cc24454cf45129b",
    ),
    "test": FileFacts(
        31_049_707,
        "4b67687d9933c4db8f0831104447f15b93774f4f464bd0516f0f0f2ac83b7864",
    ),
    "meta": FileFacts(
        1_473,
        "a5d4786345c961390f865e93b434dbd5c6904ce880667e0cb888c97d449f28b9",
    ),
}

# The superclass of each fine class, both in the order of the official files.
_COARSE = """
    4 1 14 8 0 6 7 7 18 3 3 14 9 18 7 11 3 9 7 11 6 11 5 10 7
    6 13 15 3 15 0 11 1 10 12 14 16 9 11 5 5 19 8 8 15 13 14 17 18 10
    16 4 17 4 2 0 17 4 18 17 10 3 2 12 12 16 12 1 9 19 2 10 0 1 16
    12 9 13 15 13 16 19 2 4 6 19 5 5 8 19 18 1 2 15 6 0 17 8 14 13
"""
FINE_TO_COARSE: tuple[int, ...] = tuple(map(int, _COARSE.split()))
