"""How a model comes about: labels, sweep, pipeline, comparison, retraining."""
