"""What the page shows of a run: documents of JSON values, made from the run's files."""
