"""The public losses: modules and functions, and what they check."""
