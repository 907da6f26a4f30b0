"""The closed-form merge of concepts."""
