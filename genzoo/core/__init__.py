"""The foundations: registries, recipes, protocols, errors, seeds, checkpoints. Nothing here knows a model."""
