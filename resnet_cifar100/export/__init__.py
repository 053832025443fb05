"""Trained networks in forms that run without this project's training code."""
