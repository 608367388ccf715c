"""The mining pass: similarities, positives, hardest negatives, log-sum-exp; S is never stored."""
