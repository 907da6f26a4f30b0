"""Benchmarks: each checks correctness before it times, and runs its peers side by side in one process."""
