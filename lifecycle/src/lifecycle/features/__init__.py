"""What a model reads: the feature contract, the guarded retrieval, the rules for good data."""
