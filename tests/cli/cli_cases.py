"""Small settings that tests of the commands share."""

TINY = ["--epochs", "1", "--batch-size", "64", "--embedding-dim", "32", "--hidden-dim", "32",
        "--ngram-buckets", "4096", "--evaluate-every", "0"]  # fmt: skip
