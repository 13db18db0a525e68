"""A language model's whole life: raw text, training, evaluation, serving."""

__version__ = "0.1.0"
