"""The control transformer on a frozen VAR."""
