"""What is written for a processor itself: convolutions, norms and pooling on a CPU."""
