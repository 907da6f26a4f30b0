"""Bounds on numbers that may come from files of others; messages name them. Sizes are in `ranges`."""

MAX_WORKERS = 1024  # processes that load data: more would fill a machine before anything says no
MAX_AT_ONCE = 2**20  # samples in a batch: a list of more positions fills a memory by itself
MAX_SAMPLES = 1_000_000  # that one command makes: names of files have six digits
