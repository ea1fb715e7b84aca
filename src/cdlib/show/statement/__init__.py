"""The credit statement."""
