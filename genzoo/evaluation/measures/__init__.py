"""Measures of features: plain functions of rows, each with its formula, its source and its cost."""
