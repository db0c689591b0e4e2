"""What a study found: tables, plots and pages."""
