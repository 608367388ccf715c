"""Reports: one HTML page that stands alone, and the same tables as text for the terminal."""
