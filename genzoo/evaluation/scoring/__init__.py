"""Metrics of protocols: from gathered features and a reference to numbers with their intervals."""
