"""From free numbers to a table."""
