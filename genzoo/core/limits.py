"""Bounds on numbers that may come from files of others; messages name them."""

MAX_WORKERS = 1024  # processes that load data: more would fill a machine before anything says no
