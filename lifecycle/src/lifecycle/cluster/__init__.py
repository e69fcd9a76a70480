"""What a cluster gets, as Kubernetes objects."""
