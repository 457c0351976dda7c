"""Kernels for a CPU, in C: compiled by the machine's compiler when first used, and kept in the user's cache."""
