"""The search: studies, strategies, and the loops that run them."""
