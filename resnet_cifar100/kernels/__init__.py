"""What is written for a processor itself: convolutions in fp32 on a CPU."""
