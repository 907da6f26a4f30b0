"""Samples in memory and in folders."""
