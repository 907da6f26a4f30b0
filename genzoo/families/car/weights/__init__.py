"""Released weights in their own layouts, and initial weights."""
