"""Training from a recipe, and what happens during it."""
