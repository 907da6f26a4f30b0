"""Studies: a question, the trainings that answer it, and what a paper says, beside each other."""
