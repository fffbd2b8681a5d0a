"""How a table's free numbers are learned."""
