"""What a model is: estimator, stored form, versions."""
