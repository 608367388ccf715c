"""Listed pairs of rows: values, sums over them, logits, positives."""
