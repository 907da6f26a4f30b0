"""Concepts as files: our own layout and other clients'."""
