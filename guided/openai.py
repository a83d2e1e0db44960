"""Official files (being written)."""
