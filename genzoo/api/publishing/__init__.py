"""Runs and concepts on a hub: what is put there, the page that says what it is, and the way up."""
