"""A trained run's model and data, built again for the commands that start from its checkpoint."""
