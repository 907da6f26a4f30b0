"""Judging runs and folders by a named protocol."""
