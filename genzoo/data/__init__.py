"""Data sets and the card that names them; importing it imports no torch."""
