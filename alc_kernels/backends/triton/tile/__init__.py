"""What kernels share about one tile of S."""
