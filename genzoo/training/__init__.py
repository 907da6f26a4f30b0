"""The one trainer: Accelerate loop, optimizer and learning-rate functions, EMA, hooks."""
