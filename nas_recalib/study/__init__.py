"""Studies: storage, location, configuration, stored trials, status and summary of a search."""
