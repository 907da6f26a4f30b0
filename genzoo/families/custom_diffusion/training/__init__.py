"""Teaching a concept: model, task and loss."""
