"""C kernels for the CPU, compiled on first use with the system's compiler; see `build`."""
