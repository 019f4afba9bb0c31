"""One file a figure or table: rows out."""
