"""Closed-form edits of what words mean to a base model (Unified Concept Editing)."""
