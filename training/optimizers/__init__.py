"""How a table's free numbers are learned: with a backward pass or without."""
