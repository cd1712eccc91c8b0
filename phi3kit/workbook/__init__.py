"""What only notebooks need. Nothing here is imported by the rest of the library."""
