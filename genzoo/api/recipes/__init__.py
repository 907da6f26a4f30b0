"""Recipes checked, completed and shown; the parts that they name."""
