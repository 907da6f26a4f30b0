"""Autoregression over scales: token maps from coarse to fine, each predicted from those before.

scales: how the maps lie in one sequence.   next_scale: maps to what the model reads next.   loss:
cross-entropy per scale.   filters, sampling: from logits to tokens, under guidance. Importing this package
imports no torch.
"""
