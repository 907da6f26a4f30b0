"""The commands' own options, and what they print."""
