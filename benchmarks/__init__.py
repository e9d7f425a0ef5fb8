"""What Braid measures of itself."""
