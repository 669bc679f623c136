"""What this package measures of itself beside other software."""
