"""What makes a memory play a sequence back: runs of some minutes on a CPU."""
