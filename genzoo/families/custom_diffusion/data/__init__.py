"""Pictures and captions of concepts and of their classes."""
