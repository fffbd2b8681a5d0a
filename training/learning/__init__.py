"""Where a table begins and how its free numbers are learned, with a backward pass or without."""
