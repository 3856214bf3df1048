"""Feature networks: one file for each family of architectures, registered as `feature_network`."""
