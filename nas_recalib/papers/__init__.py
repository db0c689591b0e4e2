"""The papers' printed figures, other ways to count, and the comparison with our counts."""
