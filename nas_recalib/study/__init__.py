"""Studies: where they are kept, what they are about, and what they found."""
