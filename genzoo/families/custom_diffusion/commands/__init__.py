"""Commands that this family adds."""
