"""The papers' printed figures, how they were counted, and ours beside them."""
