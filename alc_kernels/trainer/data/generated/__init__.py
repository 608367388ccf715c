"""The catalogue that is made up, for demonstrations and tests."""
