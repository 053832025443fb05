"""Data sets, augmentation and the one door for pictures from outside."""
