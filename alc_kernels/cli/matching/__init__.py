"""The commands that match titles with a trained model, and the files they write."""
