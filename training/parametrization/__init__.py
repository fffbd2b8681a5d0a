"""From free numbers to the rows of a table: the families, their clocks and what they may turn."""
