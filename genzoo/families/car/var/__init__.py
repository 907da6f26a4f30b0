"""VAR: next-scale prediction of token maps."""
