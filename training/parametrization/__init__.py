"""From free numbers to a table: the families of solvers and what is learned."""
