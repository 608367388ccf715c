"""Text files: opened, decoded, read line by line, and held in memory."""
