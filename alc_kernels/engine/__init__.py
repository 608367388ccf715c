"""From settings to passes: the arithmetic on rows that every backend shares."""
