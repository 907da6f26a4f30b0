"""Builders of feature networks; each takes (weights, device) and returns a FeatureNetwork."""
